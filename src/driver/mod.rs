//! The loops that do effects and decide nothing: io_uring and epoll, of equal standing.
