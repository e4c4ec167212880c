use super::fake::{Fake, Round};
use super::*;

const DATA: [u8; 64] = [0x5a; 64];

fn quoted(inblob: &[u8]) -> Vec<u8> {
    [b"report of ", inblob].concat()
}

fn round(writes: u64) -> Round {
    Round { writes, answer: quoted }
}

fn find(fake: &Fake) -> Tsm {
    Tsm::find(fake.root()).unwrap().unwrap()
}

#[test]
fn a_report_carries_what_was_written() {
    let fake = Fake::new("sev_guest", Some(b"certificates"), vec![round(1), round(1)]);
    let tsm = find(&fake);
    assert_eq!(tsm.provider(), "sev_guest");
    for data in [DATA, [7; 64]] {
        let expected = TsmReport { report: quoted(&data), auxiliary: b"certificates".to_vec() };
        assert_eq!(tsm.report(&data).unwrap(), expected);
    }
}

#[test]
fn tees_without_auxiliary_data_give_none() {
    let fake = Fake::new("tdx_guest", None, vec![round(1)]);
    assert_eq!(find(&fake).report(&DATA).unwrap().auxiliary, b"");
}

#[test]
fn a_report_that_others_wrote_into_is_asked_for_again() {
    let fake = Fake::new("tdx_guest", None, vec![round(2), round(0), round(1)]);
    assert_eq!(find(&fake).report(&DATA).unwrap().report, quoted(&DATA));
}

#[test]
fn conflicts_do_not_go_on_for_ever() {
    let fake = Fake::new("tdx_guest", None, (0..ATTEMPTS).map(|_| round(2)).collect());
    let err = find(&fake).report(&DATA).unwrap_err();
    assert!(matches!(err, TsmError::Conflict { attempts: ATTEMPTS, .. }), "{err}");
}

#[test]
fn below_a_paravisor_the_lowest_level_is_asked_from() {
    let fake = Fake::new("sev_guest", None, vec![round(1)]);
    fs::write(fake.entry().join("privlevel_floor"), "0\n").unwrap();
    fs::write(fake.entry().join("privlevel"), "untouched").unwrap();
    drop(find(&fake));
    assert_eq!(fs::read(fake.entry().join("privlevel")).unwrap(), b"untouched");
    fs::write(fake.entry().join("privlevel_floor"), "2\n").unwrap();
    fs::write(fake.entry().join("privlevel"), "").unwrap();
    drop(find(&fake));
    assert_eq!(fs::read(fake.entry().join("privlevel")).unwrap(), b"2");
}

#[test]
fn absence_is_told_from_what_cannot_be_used() {
    assert!(Tsm::find(Fake::empty().root()).unwrap().is_none());
    // The file system makes no attributes, unlike configfs.
    let fake = Fake::empty();
    fs::create_dir_all(fake.root().join(REPORTS)).unwrap();
    let err = Tsm::find(fake.root()).unwrap_err();
    assert!(matches!(&err, TsmError::Attribute { path, .. } if path.ends_with("provider")), "{err}");
    assert!(!fake.entry().exists());
    let fake = Fake::new("sev_guest", None, vec![]);
    fs::write(fake.entry().join("generation"), "many\n").unwrap();
    let err = find(&fake).report(&DATA).unwrap_err();
    assert!(matches!(&err, TsmError::Form { found, .. } if found == "many"), "{err}");
    fs::remove_file(fake.entry().join("generation")).unwrap();
    assert!(matches!(find(&fake).report(&DATA), Err(TsmError::Attribute { .. })));
}

#[test]
fn a_directory_that_was_prepared_is_used_and_left() {
    let fake = Fake::empty();
    let prepared = fake.root().join(REPORTS).join(PREPARED);
    fs::create_dir_all(&prepared).unwrap();
    fs::write(prepared.join("provider"), "tdx_guest\n").unwrap();
    let tsm = find(&fake);
    assert_eq!((tsm.provider(), &tsm.entry), ("tdx_guest", &prepared));
    // As configfs does, which removes attributes with their directory.
    fs::remove_file(prepared.join("provider")).unwrap();
    drop(tsm);
    assert!(prepared.is_dir() && !fake.entry().exists());
}
