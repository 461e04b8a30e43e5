//! Tests of Relay's parts outside the protocol: drivers, mailboxes, the store, cost, the command line, doctor.

mod audit;
mod cli;
mod cost;
mod doctor;
mod driver;
mod echo;
mod mail;
mod rings;
mod store;
