//! What a manager does with a message: input, time and randomness in; verdict and actions out. No I/O.
#![forbid(unsafe_code)]
