// What a Python process does for `libray stack`. See stack.cc.
#pragma once

namespace libray_py {
// Once per process: from now on a signal makes it write its Python stacks. Never fails: without a
// descriptor left the tool says that this process does not answer.
void answer_stack_requests();
}  // namespace libray_py
