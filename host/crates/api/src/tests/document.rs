use crate::routes::routes;

#[test]
fn every_route_is_described_once() {
    let (.., document) = routes().finish();
    assert!(document.paths.paths.len() > 50);
}
