//! What any object store must do before a domain is entrusted to it.
