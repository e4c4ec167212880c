//! What a request asks: decoded, routed, and its model looked up once, for whoever receives, schedules and runs it.

use std::{net::IpAddr, sync::Arc};

use confonnx_engine::{InferError, Reserved};
use confonnx_protocol::bhttp::{self, BhttpError, Body, RequestHead};

use super::{Row, Runs, Subject, route};
use crate::{
    models::{Served, Set, Slot},
    service::Service,
};

/// A request's way, known as soon as it is opened. Whether its caller may go it is for the inner API to say.
pub(in crate::service) struct Plan {
    pub(in crate::service) asks: Result<Asks, BhttpError>,
    /// The models that were served when the request was opened.
    pub(in crate::service) set: Arc<Set>,
}

/// What a request in binary HTTP asks.
pub(in crate::service) struct Asks {
    pub(in crate::service) head: RequestHead,
    /// Where the body is in the opened message.
    pub(in crate::service) body: Body,
    /// The resource that answers; none if nothing is at the path.
    pub(in crate::service) row: Option<&'static Row>,
    pub(in crate::service) model: Asked,
    /// The model, if the row is about one and it is there.
    pub(in crate::service) slot: Option<Arc<Slot>>,
}

/// The model that a request names; empty if it names none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::service) struct Asked {
    pub(in crate::service) name: String,
    pub(in crate::service) version: Option<String>,
}

impl Plan {
    /// The plan for `message`, by the models of `set`.
    pub(in crate::service) fn of(service: &Service, message: &[u8], set: Arc<Set>) -> Self {
        let asks = bhttp::decode_request(message).map(|(head, body)| {
            let routed = route(service, &head);
            let (row, mut model) = routed.map_or((None, Asked::default()), |(row, model)| (Some(row), model));
            let slot = match row.map(|row| row.subject) {
                None | Some(Subject::Nothing | Subject::Name) => None,
                Some(Subject::Served) => set.look(&model.name, model.version.as_deref()).cloned(),
                Some(Subject::Locked) => set.look_locked(&model.name, model.version.as_deref()).cloned(),
                Some(Subject::InBody(name)) => {
                    model.name = name(body.bytes(message)).unwrap_or_default();
                    set.look(&model.name, None).cloned()
                }
            };
            Asks { head, body, row, model, slot }
        });
        Self { asks, set }
    }

    /// The model that will run, if one will.
    pub(in crate::service) fn model(&self) -> Option<&Served> {
        let asks = self.asks.as_ref().ok()?;
        match asks.row?.runs {
            Runs::Model => asks.slot.as_ref()?.served(),
            Runs::Briefly | Runs::Long => None,
        }
    }

    /// Whether answering takes a thread long, or waits for other requests.
    pub(in crate::service) fn is_long(&self) -> bool {
        let runs = self.asks.as_ref().ok().and_then(|asks| asks.row).map(|row| row.runs);
        match runs {
            // Errors.
            None | Some(Runs::Briefly) => false,
            Some(Runs::Long) => true,
            // In a process of its own it takes none of this one's.
            Some(Runs::Model) => self.model().is_some_and(|served| !served.model.is_isolated()),
        }
    }

    /// Where the model that will run can do so, once there is room.
    pub(in crate::service) async fn place(&self) -> Place {
        let reserved = match self.model() {
            Some(served) => served.model.reserve().await.transpose(),
            None => None,
        };
        Place { reserved, ..Place::default() }
    }
}

/// Where a request's model runs, and where the request came from.
#[derive(Default)]
pub struct Place {
    /// In its own process: there, or nowhere. None is in this process.
    pub(in crate::service) reserved: Option<Result<Reserved, InferError>>,
    /// Whether on all cores, as there is no other request.
    pub alone: bool,
    /// The network that the request came from, if that tells callers apart.
    pub network: Option<IpAddr>,
}
