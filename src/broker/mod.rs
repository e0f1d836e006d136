mod hash;
mod index;
mod message;
mod retained;
