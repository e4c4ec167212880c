use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail};
use clap::Args;
use confonnx_client::{Client, Request};
use serde_json::Value;

use crate::args::{Connection, Expected};
use crate::{complain, table};

/// Chat with a language model that only its TEE and you can overhear
///
/// The server is verified first, and what was verified is shown. Each line is a message; an empty line or the end of input
/// ends the chat. Answers come as they are made, sealed. Exit codes are those of `confonnx predict`.
#[derive(Args)]
pub(crate) struct Chat {
    /// The server
    #[arg(long)]
    url: String,
    /// The model [default: the server's only one]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Say this and end with the answer, which alone goes to standard output
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// What the model is told before the chat
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// 0 takes the most likely word each time [default: what the model's owner advises]
    #[arg(long, value_name = "0 to 2")]
    temperature: Option<f64>,
    /// The same seed gives the same answer to the same chat
    #[arg(long, value_name = "NUMBER")]
    seed: Option<i64>,
    /// The longest answer
    #[arg(long, value_name = "TOKENS")]
    max_tokens: Option<u64>,
    /// Have answers come at fixed instants, this many milliseconds apart, so that nobody sees how fast which word was found
    #[arg(long, value_name = "10 to 1000")]
    pace_ms: Option<u64>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl Chat {
    pub(crate) fn run(&self) -> Result<()> {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.chat())
    }

    async fn chat(&self) -> Result<()> {
        let client = Client::new(&self.url, self.expected.policy(None)?, self.connection.options()?)?;
        let proof = client.attest().await?;
        let model = match &self.model {
            Some(name) => name.clone(),
            None => only_model(&client).await?,
        };
        let mut messages = confonnx_client::Chat::new();
        if let Some(text) = &self.system {
            messages = messages.system(text);
        }
        if let Some(message) = &self.message {
            messages = messages.user(message);
            self.answer(&client, &model, &messages).await?;
            return Ok(());
        }
        let person = io::stdin().is_terminal();
        let mut errors = io::stderr();
        writeln!(errors, "{}\n", table(proof.verdict()))?;
        writeln!(
            errors,
            "{model}: what you write is sealed to the server that was verified above. An empty line ends the chat."
        )?;
        let prompt = || if person { print("> ") } else { Ok(()) };
        prompt()?;
        for line in io::stdin().lock().lines().chain(std::iter::once(Ok(String::new()))) {
            let line = line?;
            if line.trim().is_empty() {
                break;
            }
            messages = messages.user(line);
            let answer = self.answer(&client, &model, &messages).await?;
            messages = messages.assistant(answer);
            prompt()?;
        }
        Ok(())
    }

    /// Prints the answer as it comes.
    async fn answer(&self, client: &Client, model: &str, messages: &confonnx_client::Chat) -> Result<String> {
        let choices = [
            ("temperature", self.temperature.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
            ("max_tokens", self.max_tokens.map(Value::from)),
            ("pace_ms", self.pace_ms.map(Value::from)),
        ];
        let given = choices.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let chat =
            given.fold(messages.clone().model(model), |chat, (name, value)| chat.parameter(name, value));
        let mut stream = client.chat_stream(&chat).await?;
        while let Some(more) = stream.token().await.context("the answer above is not complete")? {
            print(&more)?;
        }
        print("\n")?;
        let answer = stream.answer();
        if answer.finish_reason.as_deref() == Some("length") {
            complain("the answer is as long as it may be; --max-tokens changes that");
        }
        Ok(answer.text.clone())
    }
}

fn id(model: &Value) -> Option<&str> {
    model.get("id")?.as_str()
}

async fn only_model(client: &Client) -> Result<String> {
    let response = client.request(Request::get("/v1/models")).await?;
    let body: Value = serde_json::from_slice(response.body()).context("the list of models is not JSON")?;
    let names: Vec<&str> =
        body.get("data").and_then(Value::as_array).into_iter().flatten().filter_map(id).collect();
    match names.as_slice() {
        [name] => Ok((*name).to_owned()),
        [] => bail!("the server has no models that you may use"),
        names => bail!("the server has several models ({}); say which with --model", names.join(", ")),
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
