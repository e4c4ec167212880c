use serde_json::Value;

use super::*;

fn vector(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/evidence");
    std::fs::read(folder.join(name)).unwrap()
}

fn expires(body: impl Into<Vec<u8>>) -> Option<u64> {
    Answer { headers: Vec::new(), body: body.into() }.expires().map(|time| time.0)
}

#[test]
fn what_vendors_send_says_when_it_expires() {
    // 2030-04-03T19:23:43Z and, of ASK and ARK, 2045-10-22T17:23:05Z.
    assert_eq!(expires(vector("snp/vcek_milan.der")), Some(1_901_474_623));
    assert_eq!(expires(vector("snp/cert_chain_milan")), Some(2_392_305_785));

    let collateral: Value = serde_json::from_slice(&vector("tdx/tdx_quote_td15ex_collateral.json")).unwrap();
    let text = |member: &str| collateral[member].as_str().unwrap().to_owned();
    // nextUpdate: 2026-11-07T00:09:46Z, 2026-11-06T23:45:11Z, and those of the lists.
    let tcb_info = format!(r#"{{"tcbInfo":{},"signature":"00"}}"#, text("tcb_info"));
    assert_eq!(expires(tcb_info), Some(1_794_010_186));
    let identity = format!(r#"{{"enclaveIdentity":{},"signature":"00"}}"#, text("qe_identity"));
    assert_eq!(expires(identity), Some(1_794_008_711));
    let root_crl = text("root_ca_crl");
    let der = digest::decode(&root_crl).unwrap();
    assert!(expires(der.clone()).is_some_and(|time| time > 1_790_000_000));
    assert_eq!(expires(root_crl), expires(der));
    assert!(expires(digest::decode(&text("pck_crl")).unwrap()).is_some());

    // The cloud's own service: PEM within JSON.
    let chain = String::from_utf8(vector("snp/cert_chain_milan")).unwrap();
    let wrapped = serde_json::json!({ "certificateChain": chain, "tcbm": "DB18000000000004" });
    assert_eq!(expires(wrapped.to_string()), Some(2_392_305_785));
}

#[test]
fn anything_else_does_not() {
    for body in ["", "<html>sign in</html>", "{}", "[]", "null", "00", r#"{"tcbInfo":{"nextUpdate":"soon"}}"#]
    {
        assert_eq!(expires(body), None, "{body}");
    }
    let mut cut = vector("snp/vcek_milan.der");
    cut.pop();
    assert_eq!(expires(cut), None);
}

#[test]
fn requests_go_to_the_vendor_or_where_the_operator_says() {
    let request = |vendor, path: &str| Request { vendor, path: path.into() };
    let chain = request(Vendor::Amd, "/vcek/v1/Milan/cert_chain");
    assert_eq!(chain.url(None), "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain");
    assert_eq!(
        chain.url(Some("http://cache.example:8080/amd/")),
        "http://cache.example:8080/amd/vcek/v1/Milan/cert_chain"
    );
    let root = Request::intel_root_crl();
    assert_eq!(root.url(None), "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der");
    assert_eq!(
        root.url(Some("https://pccs.example:8081")),
        "https://pccs.example:8081/sgx/certification/v4/rootcacrl"
    );
}
