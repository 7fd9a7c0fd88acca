//! Models too simple to be wrong: disk images per LSN, and the commit rules explored state by state.
