//! `kill -9` of each part while it is used: what was promised of the others holds, and all is well again by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::Progress;
use e2e::client::ChatClient;
use e2e::herd::{DEADLINE, Herd};
use e2e::process;
use e2e::wait;
use serde_json::json;

const NAME: &str = "talker";
/// The engine gives a word every 50 ms: the answer is still running when something is killed, whatever the machine does.
const WORDS: usize = 200;
/// From the kill to the client's knowledge of it the kernel needs milliseconds; this is for a busy machine.
const BREAK_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_killed_comes_back() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let mut herd = Herd::start(2, &say).await?;
    herd.fake(NAME, &format!("answer {}\ntoken-delay 50ms", json!(answer())))?;
    herd.apply(NAME, &json!({"model": herd.example()}))?;
    herd.until_serving(NAME, 1).await?;
    say("kill -9 of the engine");
    an_engine(&herd, &say).await.context("engine killed")?;
    say("kill -9 of the operator");
    the_operator(&herd).await.context("operator killed")?;
    say("kill -9 of an agent");
    an_agent(&mut herd, &say).await.context("agent killed")
}

fn answer() -> String {
    "word ".repeat(WORDS)
}

/// The client sees the connection break, not an end; the endpoint leaves and comes back with another process behind it.
async fn an_engine(herd: &Herd, say: Progress<'_>) -> Result<()> {
    let pid = single_engine(herd)?;
    let client = client(herd).await?;
    let mut killed_at = None;
    let stream = client.stream(NAME, "Talk.", |_| {
        if killed_at.is_none() && process::kill(pid).is_ok() {
            killed_at = Some(Instant::now());
        }
    });
    let Err(error) = tokio::time::timeout(BREAK_DEADLINE + DEADLINE, stream).await? else {
        bail!("the stream of a killed engine ended as if it were whole");
    };
    let killed_at = killed_at.context("the answer had no words")?;
    say(&format!("the client knew it {:.3} s after the kill", killed_at.elapsed().as_secs_f64()));
    let error = format!("{error:#}");
    ensure!(error.contains("broke off"), "not a broken connection: {error}");
    herd.until_endpoints(NAME, 0).await?;
    herd.until_serving(NAME, 1).await?;
    ensure!(single_engine(herd)? != pid, "the engine was never dead");
    assert_eq!(herd.until_answer(NAME, "Talk.").await?, answer());
    let replicas = herd.replicas(NAME).await?;
    let exit =
        replicas[0].status.as_ref().and_then(|status| status.last_exit.as_ref()).context("no lastExit")?;
    ensure!(exit.status.contains('9'), "the signal is not told: {exit:?}");
    Ok(())
}

/// An answer under way and the ones after it do not need an operator; the next operator goes on with what is new.
async fn the_operator(herd: &Herd) -> Result<()> {
    let pid = single_engine(herd)?;
    let client = client(herd).await?;
    let mut killed = None;
    let streamed = client.stream(NAME, "Talk.", |_| {
        killed.get_or_insert_with(|| herd.lab.kill_operator());
    });
    assert_eq!(streamed.await?.text, answer());
    killed.context("the answer had no words")??;
    ensure!(herd.lab.expect_operator().is_err(), "the operator lives");
    assert_eq!(client.stream(NAME, "Talk.", |_| ()).await?.text, answer());

    let scaled = herd.lab.cluster.kubectl().run(&format!("scale smd/{NAME} --replicas=2"))?;
    ensure!(scaled.contains("scaled"), "{scaled}");
    herd.lab.start_operator()?;
    let endpoints = herd.until_serving(NAME, 2).await?;
    ensure!(endpoints[0].node != endpoints[1].node, "both on one Spark: {endpoints:?}");
    ensure!(herd.engine_pids()?.contains(&pid), "the new operator stopped an engine that served");
    Ok(())
}

/// No engine outlives its agent: nobody would guard the memory. The next agent starts it again.
async fn an_agent(herd: &mut Herd, say: Progress<'_>) -> Result<()> {
    let (pids, others) = (herd.sparks[0].engine_pids()?, herd.sparks[1].engine_pids()?);
    ensure!(pids.len() == 1 && others.len() == 1, "one engine each was expected: {pids:?} {others:?}");
    herd.sparks[0].kill_agent()?;
    wait::until_true("the engine to die with its agent", DEADLINE, async || {
        Ok((!process::is_alive(pids[0]), format!("{} lives", pids[0])))
    })
    .await?;
    ensure!(process::is_alive(others[0]), "the other Spark's engine died too");
    // The engine is dead and its agent silent: after the heartbeat's 40 s only the other Spark's endpoint is published.
    let away_since = Instant::now();
    let endpoints = herd.until_endpoints(NAME, 1).await?;
    say(&format!("its endpoint was gone {:.0} s later", away_since.elapsed().as_secs_f64()));
    ensure!(endpoints[0].node == herd.sparks[1].name, "the dead one is still published: {endpoints:?}");
    herd.sparks[0].start_agent(&herd.lab)?;
    wait::until_true("a new engine", DEADLINE, async || {
        let now = herd.sparks[0].engine_pids()?;
        Ok((now.len() == 1 && now != pids, format!("{now:?}")))
    })
    .await?;
    let endpoints = herd.until_serving(NAME, 2).await?;
    for endpoint in endpoints {
        let client = ChatClient::new(endpoint.address, Some(&herd.lab.key))?;
        wait::until_true("an answer of each", DEADLINE, async || {
            let text = client.stream(NAME, "Talk.", |_| ()).await?.text;
            Ok((text == answer(), text))
        })
        .await?;
    }
    assert_eq!(herd.sparks[1].engine_pids()?, others, "the other Spark's engine was restarted");
    Ok(())
}

fn single_engine(herd: &Herd) -> Result<u32> {
    let pids = herd.engine_pids()?;
    ensure!(pids.len() == 1, "one engine was expected: {pids:?}");
    Ok(pids[0])
}

async fn client(herd: &Herd) -> Result<ChatClient> {
    let endpoints = herd.until_endpoints(NAME, 1).await?;
    ChatClient::new(endpoints[0].address, Some(&herd.lab.key))
}
