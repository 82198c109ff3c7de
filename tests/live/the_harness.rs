//! The lab itself works: two neighbours peer with each other the way they will with the router.

use crate::lab::neighbour::{FarEnd, Neighbour};

fn far_end(of: &Neighbour, underlay: &str) -> FarEnd {
    FarEnd {
        asn: of.asn,
        address: of.address.clone(),
        public: of.keys.public.clone(),
        endpoint: format!("{underlay}:{}", Neighbour::PORT),
    }
}

fn joined() -> (Neighbour, Neighbour, FarEnd, FarEnd) {
    let (a, b) = (Neighbour::new(1), Neighbour::new(2));
    a.inside
        .link("u0", &["192.0.2.1/24"], &b.inside, "u0", &["192.0.2.2/24"]);
    let (of_a, of_b) = (far_end(&a, "192.0.2.1"), far_end(&b, "192.0.2.2"));
    (a, b, of_a, of_b)
}

fn assert_routes_pass(a: &Neighbour, b: &Neighbour) {
    a.wait_established(30);
    b.wait_established(30);
    for (to, from) in [(a, b), (b, a)] {
        to.wait_route(&from.prefix4, &from.asn.to_string(), 15);
        to.wait_route(&from.prefix6, &from.asn.to_string(), 15);
    }
}

#[test]
fn two_birds_exchange_routes_through_a_tunnel() {
    let (mut a, mut b, of_a, of_b) = joined();
    let version = crate::lab::bird::version();
    a.start_bird(&version, &of_b);
    b.start_bird(&version, &of_a);
    assert_routes_pass(&a, &b);
}

#[test]
fn bird_and_frr_exchange_routes_through_a_tunnel() {
    let (mut a, mut b, of_a, of_b) = joined();
    a.start_bird(&crate::lab::bird::version(), &of_b);
    b.start_frr(&of_a);
    assert_routes_pass(&a, &b);
}
