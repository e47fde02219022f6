// Errors that nobody looked at before their last reference went. See unread.cc.
#pragma once

namespace libray_py {
void watch_unread_errors();   // by init: from now on they are told to the Python half
void forget_unread_errors();  // in a forked child
}  // namespace libray_py
