//! What is asked over the command socket, and what is answered.

use serde_json::{Value, json};

use super::ControlPlane;
use crate::{
    command::{Answer, Order, Request},
    registry::{self, Moment},
    totals::Totals,
};

impl ControlPlane {
    /// Does what an order says, and answers.
    pub(super) async fn obey(&mut self, order: Order) {
        if order.from == 0 {
            self.counted.commands.add(1);
        }
        let outward = self.outward.clone().expect("orders come once the control plane lives");
        let answer = match &order.request {
            Request::Agents { ids } => {
                let now = Moment::now(self.clock);
                if order.from == 0 {
                    self.registry.look(now);
                }
                self.registry.answer(now, ids, order.from)
            }
            Request::Reload => match self.reload().await {
                Ok(changes) => Answer::ok(json!(changes)),
                Err(problem) => Answer::refused(format!("{problem}; everything stays as it was")),
            },
            Request::AgentRequest { id, text } => {
                let (id, text) = (id.clone(), text.clone());
                return outward.on_agent_request(order, id, text);
            }
            Request::ResetCounter { id } => self.reset_counter(id).await,
            Request::Send { to, text } => {
                let (to, text) = (to.clone(), text.clone());
                return outward.on_send(order, &to, &text);
            }
            Request::Status => Answer::ok(self.status_told()),
        };
        order.answer(answer);
    }

    /// Forgets an agent's counters, here and on disk, before it says so.
    async fn reset_counter(&mut self, id: &str) -> Answer {
        let table = self.table.load_full();
        let Some(agent) = registry::find(&table, id) else {
            return Answer::refused(format!("no agent in client.keys has the id {id:?}"));
        };
        let before = agent.state().replay().highest();
        agent.state().replay().reset();
        if let Err(error) = self.store.forget(agent.id()) {
            return Answer::refused(format!(
                "agent {}: the counter is reset, but its file in queue/rids can't be removed: {error}",
                agent.id()
            ));
        }
        self.write_counters().await;
        tracing::info!("counter of agent {} reset; it was {}:{}", agent.id(), before.global, before.local);
        Answer::ok(json!({ "id": agent.id().as_str(), "was": format!("{}:{}", before.global, before.local) }))
    }

    fn status_told(&mut self) -> Value {
        let totals = Totals::of(&self.metrics);
        let dropped: serde_json::Map<String, Value> = manager::Reason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), totals.dropped[reason.index()]))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name, count.into()))
            .collect();
        let counts = self.registry.look(Moment::now(self.clock));
        let mut told: Value = serde_json::from_str(&self.status.text).expect("it was made from JSON");
        told["version"] = env!("CARGO_PKG_VERSION").into();
        told["uptime_seconds"] = (self.clock.nanoseconds() / 1_000_000_000).into();
        told["agents"] = json!({
            "active": counts.active, "disconnected": counts.disconnected, "never": counts.never,
        });
        told["received"] = totals.received.into();
        told["events"] = totals.events.into();
        told["control"] = totals.control.into();
        told["dropped"] = dropped.into();
        told["events_raised"] = totals.raised.into();
        told["outward"] = self.outward.as_ref().map(|outward| outward.status()).into();
        told["notices_dropped"] = self.notices.dropped().into();
        told
    }
}
