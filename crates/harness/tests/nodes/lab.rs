//! The laboratory itself: that its servers start, keep what they promise to keep, fail over and come back.
//!
//! Invariant checked: what a fault is said to do to Redis is what happens, so that a siege with it proves something.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use postrider_harness::machine::{Need, run};
use postrider_harness::proxy::Proxy;
use postrider_harness::redis::{Client, Cluster, Fsync, Replicated, Server, ServerOptions};

use crate::alone;

#[test]
fn a_server_keeps_its_data_and_its_address_over_a_kill() -> Result<()> {
    run("a_server_keeps_its_data", &[Need::Redis], || {
        let _alone = alone();
        for (fsync, kept) in [
            (Fsync::Always, "1"),
            (Fsync::EverySecond, "1"),
            (Fsync::Never, ""),
        ] {
            let mut server = Server::start(ServerOptions::fsync(fsync))?;
            let addr = server.addr();
            let run_id = server.client()?.info_value("server", "run_id")?;
            server.client()?.must(&["SET", "a", "1"])?;
            server.kill9()?;
            ensure!(server.client().is_err(), "it answers though it was killed");
            server.restart()?;
            ensure!(server.addr() == addr);
            ensure!(server.client()?.info_value("server", "run_id")? != run_id);
            ensure!(
                server.client()?.must(&["GET", "a"])?.text() == kept,
                "with {fsync:?}"
            );
            server.stop()?;
            server.restart()?;
            ensure!(server.client()?.must(&["GET", "a"])?.text() == kept);
        }
        Ok(())
    })
}

#[test]
fn a_paused_server_says_nothing_and_goes_on() -> Result<()> {
    run("a_paused_server", &[Need::Redis], || {
        let _alone = alone();
        let server = Server::start(ServerOptions::default())?;
        let proxy = Proxy::start(&[server.addr()])?;
        let mut client = Client::connect(proxy.addr())?;
        ensure!(client.must(&["PING"])?.text() == "PONG");
        server.pause()?;
        client.set_patience(Duration::from_millis(300))?;
        ensure!(client.ask(&["PING"]).is_err(), "it answers though it is stopped");
        server.resume()?;
        ensure!(Client::connect(proxy.addr())?.must(&["PING"])?.text() == "PONG");
        Ok(())
    })
}

#[test]
fn sentinels_move_the_master() -> Result<()> {
    run("sentinels_move_the_master", &[Need::Redis], || {
        let _alone = alone();
        let mut all = Replicated::start(ServerOptions::default())?;
        let mut client = all.master()?.client()?;
        client.must(&["SET", "a", "1"])?;
        ensure!(client.must(&["WAIT", "1", "20000"])?.text() == "1");
        let began = Instant::now();
        let before = all.fail_over()?;
        println!("redis_lab: failed over in {:.1} s", began.elapsed().as_secs_f64());
        let mut master = all.master()?.client()?;
        ensure!(all.master_addr()? != before);
        ensure!(master.must(&["SET", "b", "2"])?.text() == "OK" && master.must(&["GET", "a"])?.text() == "1");
        all.heal()?;
        all.move_master()?;
        ensure!(all.master_addr()? == before);
        ensure!(all.master()?.client()?.must(&["GET", "b"])?.text() == "2");
        Ok(())
    })
}

#[test]
fn a_cluster_fails_over_by_itself_and_on_demand() -> Result<()> {
    run("a_cluster_fails_over", &[Need::Redis], || {
        let _alone = alone();
        let began = Instant::now();
        let mut cluster = Cluster::start(ServerOptions::default())?;
        let made = began.elapsed();
        let before = cluster.masters()?;
        let began = Instant::now();
        cluster.fail_over(1)?;
        println!(
            "redis_lab: a Cluster in {:.1} s, failed over in {:.1} s",
            made.as_secs_f64(),
            began.elapsed().as_secs_f64()
        );
        let after = cluster.masters()?;
        ensure!((before[0], before[2]) == (after[0], after[2]) && before[1] != after[1]);
        cluster.heal()?;
        cluster.move_master(1)?;
        ensure!(cluster.masters()? == before);
        Ok(())
    })
}
