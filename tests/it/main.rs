//! Tests of the whole: real files, real processes, the real binary.
#![allow(missing_docs, reason = "tests are documented by their names")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly, and make what they need"
)]
mod admin_files;
mod advice;
mod any_data;
mod apart;
mod attacks;
mod before_adopting;
mod blame;
mod brought;
mod changed_mind;
mod checks;
mod ci;
mod corpus;
mod crash;
mod data;
mod data_limits;
mod data_mounts;
mod data_roots;
mod data_seen;
mod differential;
mod docs;
mod error_examples;
mod errors;
mod filesystems;
mod first_minute;
mod fleet;
mod fleet_cells;
mod fleet_clocks;
mod fleet_edges;
mod fleet_fire;
mod fleet_follow;
mod fleet_forged;
mod fleet_known;
mod fleet_large;
mod fleet_losses;
mod fleet_many;
mod fleet_member;
mod fleet_signed;
mod fleet_silent;
mod fleet_slots;
mod fleet_tools;
mod fleet_words;
mod format;
mod full_disk;
mod full_size;
mod fuzz;
mod gives_up;
mod hints;
mod interleave;
mod kept_parts;
mod last_refusal;
mod late_answer;
mod layers;
mod lent_keys;
mod look;
mod lying;
mod model_cells;
mod model_overlap;
mod model_regions;
mod model_rolling;
mod model_synchronous;
mod model_turns;
mod monitoring;
mod node;
mod owners;
mod pack;
mod partial;
mod pause;
mod places;
mod plan;
mod publishers;
mod refusals;
mod robust;
mod room;
mod schema;
mod second_fault;
mod security_page;
mod shared;
mod sim;
mod single_node;
mod slips;
mod spoken_to;
mod staging;
mod status;
mod surroundings;
mod terminal;
mod tls_checks;
mod touched;
mod truth;
mod typed;
mod way_back;
mod web;
mod web_faults;
mod web_hook;
mod words;
