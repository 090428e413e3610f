//! The capacity planner: from what the benches measured on a machine to what a fleet needs of such machines.
//!
//! [`Figures::read`] reads criterion's reports, [`plan`] computes, [`table`] and [`html`] show. CAPACITY.md states the model.

mod demand;
mod figures;
mod html;
mod model;
mod needed;
mod table;

pub use demand::{Cipher, Demand, Protocol, Sink};
pub use figures::{Figure, Figures, FiguresError};
pub use html::html;
pub use model::{Cpu, Line, Memory, Network, Plan, ReceiveBuffer, SEGMENTS, Used, plan};
pub use needed::{Missing, needed};
pub use table::table;
