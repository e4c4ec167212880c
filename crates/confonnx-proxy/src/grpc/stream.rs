//! `ModelStreamInfer`: many requests, answered in their order. A language model answers one by many.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Status, Streaming, metadata::MetadataMap};

use super::{
    calls::Service,
    generate,
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
    let (started, mut running) = mpsc::channel::<mpsc::Receiver<ModelStreamInferResponse>>(AT_ONCE);
    let (finished, answers) = mpsc::channel(AT_ONCE);
    let service = service.clone();
    let broken = finished.clone();
    tokio::spawn(async move {
        // Those of sequences go one after another: each goes on with what the one before left.
        let mut before: Option<JoinHandle<()>> = None;
        loop {
            match requests.message().await {
                Ok(Some(request)) => {
                    let (service, metadata) = (service.clone(), metadata.clone());
                    let (said, coming) = mpsc::channel(AT_ONCE);
                    let goes_on = request.parameters.contains_key("sequence_id");
                    let first = before.take_if(|_| goes_on);
                    let task = tokio::spawn(async move {
                        if let Some(first) = first {
                            let _ = first.await;
                        }
                        answer(&service, &metadata, request, &said).await;
                    });
                    before = if goes_on { Some(task) } else { before };
                    if started.send(coming).await.is_err() {
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
        while let Some(mut coming) = running.recv().await {
            let mut answered = false;
            while let Some(answer) = coming.recv().await {
                answered = true;
                if finished.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            if !answered {
                let failed = Err(Status::internal("the proxy failed on this request"));
                let _ = finished.send(failed).await;
                return;
            }
        }
    });
    Answers(answers)
}

/// An error is an answer, too: the stream goes on. If nobody reads any more, the rest is given up.
async fn answer(
    service: &Service,
    metadata: &MetadataMap,
    request: ModelInferRequest,
    said: &mpsc::Sender<ModelStreamInferResponse>,
) {
    let (id, model_name) = (request.id.clone(), request.model_name.clone());
    let flag = Some(ParameterChoice::BoolParam(true));
    let wanted = request.parameters.get("triton_enable_empty_final_response");
    let says_final = wanted.is_some_and(|wanted| wanted.parameter_choice == flag);
    let mut last = match generate::asked(service, metadata, &request).await {
        Ok(None) => service.infer(metadata, request).await,
        Ok(Some(order)) => generate::answers(service, metadata, &request, &order, said, says_final).await,
        Err(status) => Err(status),
    };
    if let (Ok(response), true) = (&mut last, says_final) {
        response.parameters.insert(generate::FINAL.into(), InferParameter { parameter_choice: flag });
    }
    let (error_message, response) = match last {
        Ok(response) => (String::new(), response),
        Err(status) => {
            (status.message().into(), ModelInferResponse { id, model_name, ..ModelInferResponse::default() })
        }
    };
    let _ = said.send(ModelStreamInferResponse { error_message, infer_response: Some(response) }).await;
}
