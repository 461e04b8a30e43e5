//! The epoll loop. To come.
