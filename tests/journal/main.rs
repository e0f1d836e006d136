//! The store's files: on a simulated disk that is cut at every byte, fails and is damaged, and in a real directory.

mod crash;
mod damage;
mod history;
mod real;
mod sim_disk;
mod start;
