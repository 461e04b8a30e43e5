//! Hostile input over the wire: the right answer, only the offender closed, everyone else served, memory flat.

mod floods;
mod frames;
mod json;
mod requests;
mod strangers;
mod unharmed;
