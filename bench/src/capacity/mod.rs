//! The capacity planner.
