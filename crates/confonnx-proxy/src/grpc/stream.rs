//! `ModelStreamInfer`: many requests, answered in their order.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Status, Streaming, metadata::MetadataMap};

use super::{
    calls::Service,
    inference::{
        InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
    },
};

/// Requests of one stream that run at once.
const AT_ONCE: usize = 16;

/// Answers, as they come.
pub(super) struct Answers(mpsc::Receiver<Result<ModelStreamInferResponse, Status>>);

impl futures_core::Stream for Answers {
    type Item = Result<ModelStreamInferResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Runs what comes until the program has no more, or no longer reads.
pub(super) fn answers(
    service: &Service,
    metadata: MetadataMap,
    mut requests: Streaming<ModelInferRequest>,
) -> Answers {
    let (started, mut running) = mpsc::channel::<JoinHandle<ModelStreamInferResponse>>(AT_ONCE);
    let (finished, answers) = mpsc::channel(AT_ONCE);
    let service = service.clone();
    let broken = finished.clone();
    tokio::spawn(async move {
        loop {
            match requests.message().await {
                Ok(Some(request)) => {
                    let (service, metadata) = (service.clone(), metadata.clone());
                    let run = tokio::spawn(async move { answer(&service, &metadata, request).await });
                    if started.send(run).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(status) => {
                    let _ = broken.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    tokio::spawn(async move {
        while let Some(run) = running.recv().await {
            let answer = run.await.map_err(|_| Status::internal("the proxy failed on this request"));
            if finished.send(answer).await.is_err() {
                return;
            }
        }
    });
    Answers(answers)
}

/// An error is an answer, too: the stream goes on.
async fn answer(
    service: &Service,
    metadata: &MetadataMap,
    request: ModelInferRequest,
) -> ModelStreamInferResponse {
    let (id, model_name) = (request.id.clone(), request.model_name.clone());
    let wanted = request.parameters.get("triton_enable_empty_final_response");
    let says_final =
        wanted.is_some_and(|wanted| wanted.parameter_choice == Some(ParameterChoice::BoolParam(true)));
    let (mut response, error_message) = match service.infer(metadata, request).await {
        Ok(response) => (response, String::new()),
        Err(status) => {
            (ModelInferResponse { id, model_name, ..ModelInferResponse::default() }, status.message().into())
        }
    };
    if says_final {
        let yes = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        response.parameters.insert("triton_final_response".into(), yes);
    }
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
