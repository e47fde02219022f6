/* functions.h -- what cross_program's workers offer. */
#ifndef TESTS_CROSS_FUNCTIONS_H
#define TESTS_CROSS_FUNCTIONS_H
void register_functions(void);
#endif
