//! The looking glass of a running agent: a real BIRD, and a way with two routers on it.

use crate::lab::bird;
use crate::lab::namespace::Namespace;
use crate::lab::router::{self, Router};
use crate::lab::wait_until;
use serde_json::{Value, json};

const AUTHORIZATION: &str = "-H 'Authorization: Bearer glass'";

fn router() -> Router {
    let mut router = Router::new(&bird::version());
    let main = "router id 172.23.105.177;\nprotocol device {}\n\
                protocol static s4 { ipv4; route 172.20.99.0/24 blackhole; }\n\
                protocol static s6 { ipv6; route fd99::/48 blackhole; }\n";
    std::fs::write(router.path("bird/bird.conf"), main).unwrap();
    router.start_bird();
    let mut config = router.config("http://192.0.2.1", 60);
    config.as_object_mut().unwrap().remove("controlPlane");
    config["node"] =
        json!({"name": "jp1", "id": 1, "asn": router::ASN, "loopbackIpv4": "172.23.105.177"});
    config["server"]["token"] = json!("of the api");
    config["server"]["lookingGlass"] = json!({"token": "glass"});
    router.write_config(&config);
    router.spawn_agent(&[]);
    router
}

/// Asks, and waits while the glass is busy.
fn ask(router: &Router, path: &str) -> (u16, Value) {
    let mut answer = (429, Value::Null);
    wait_until("the looking glass is not busy", 30, || {
        let (status, body) = router.api(AUTHORIZATION, &format!("'/looking-glass/{path}'"));
        answer = (status, serde_json::from_str(&body).unwrap_or(Value::Null));
        match status {
            429 => Err(body),
            _ => Ok(()),
        }
    });
    answer
}

#[test]
fn looking_glass_shows_routes_ping_and_way() {
    let router = router();
    let [middle, end] = ["middle", "end"].map(Namespace::new);
    router
        .inside
        .link("h0", &["10.77.0.1/30"], &middle, "h1", &["10.77.0.2/30"]);
    middle.link("h2", &["10.77.1.1/30"], &end, "h3", &["10.77.1.2/30"]);
    middle.shell("sysctl -qw net.ipv4.ip_forward=1");
    router
        .inside
        .shell("ip route add 10.77.1.0/30 via 10.77.0.2");
    end.shell("ip route add 10.77.0.0/30 via 10.77.1.1");
    wait_until("the local API listens", 30, || {
        router
            .inside
            .try_shell("curl -s http://127.0.0.1:24368/healthz")
            .map(drop)
    });
    for (target, prefix) in [
        ("172.20.99.7", "172.20.99.0/24"),
        ("fd99::/64", "fd99::/48"),
    ] {
        let (status, route) = ask(&router, &format!("route?target={target}"));
        let lines = route["lines"].to_string();
        assert!(
            status == 200 && lines.contains(prefix) && lines.contains("blackhole"),
            "{route}"
        );
    }
    let (status, none) = ask(&router, "route?target=172.21.0.0/16");
    assert_eq!((status, &none["lines"]), (200, &json!([])), "{none}");
    let (_, ping) = ask(&router, "ping?target=10.77.1.2");
    assert_eq!(
        (&ping["sent"], ping["timesMs"].as_array().unwrap().len()),
        (&json!(4), 4),
        "{ping}"
    );
    let (_, unreachable) = ask(&router, "ping?target=10.78.0.1");
    assert_eq!(unreachable["code"], "PROBE_FAILED", "{unreachable}");
    let (_, way) = ask(&router, "trace?target=10.77.1.2");
    let hops = [&way["hops"][0]["address"], &way["hops"][1]["address"]];
    assert_eq!(hops, ["10.77.0.2", "10.77.1.2"], "{way}");
    assert_eq!(
        (&way["reached"], way["hops"].as_array().unwrap().len()),
        (&json!(true), 2),
        "{way}"
    );
    // Neither a command, nor a name, nor an address outside of DN42, nor the token of the API.
    for (path, status) in [
        ("route?target=10.0.0.1%0Adisable%20all", 400),
        ("ping?target=example.org", 400),
        ("trace?target=192.0.2.1", 400),
    ] {
        assert_eq!(ask(&router, path).0, status, "{path}");
    }
    let other = "-H 'Authorization: Bearer of the api'";
    assert_eq!(
        router
            .api(other, "'/looking-glass/route?target=10.0.0.1'")
            .0,
        401
    );
    assert_eq!(router.api(AUTHORIZATION, "/status").0, 401);
    let shown = router
        .bird
        .try_ask(&router.inside, "show protocols")
        .unwrap();
    assert!(!shown.contains("down"), "{shown}");
}
