//! Tests of Relay's pieces beside the protocol: drivers, mailboxes, the store, cost, the command line, doctor.

mod cli;
mod cost;
mod doctor;
mod driver;
mod echo;
mod mail;
mod rings;
mod store;
