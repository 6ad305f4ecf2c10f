//! A room of SEE.
