#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| daemon::ossec_conf::fuzzing::ossec_conf(bytes));
