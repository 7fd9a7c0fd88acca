//! Object stores behind handles typed by right, with a cost meter, an attach probe and a fault layer.
