//! The bodies of the fuzz targets, with what they assert. Each takes any bytes and must return.
