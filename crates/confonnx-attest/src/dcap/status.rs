//! How a platform stands, computed from Intel's lists as Intel's own library does (`convergeTcbStatuses` and
//! `checkForRelaunch` of its quote verification library).
//!
//! `dcap-qvl` computes the same, and is asked first. It gives no answer about trust domains with attributes that it
//! refuses and that policies of ours may accept. Then this computation counts, and tests hold that both say the same of
//! all others.

use dcap_qvl::intel::PckExtension;
use dcap_qvl::{QeIdentity, TcbInfo, TcbLevel, TcbStatus, TcbStatusWithAdvisory};

use super::enclave::EnclaveReport;
use super::platform::Platform;
use super::quote::Quote;

/// The platform of a quote, when every level is found and none is revoked.
pub(super) fn platform(
    quote: &Quote,
    pck: &PckExtension,
    info: &TcbInfo,
    identity: &QeIdentity,
) -> Option<Platform> {
    let report = EnclaveReport::parse(&quote.qe_report).ok()?;
    let enclave = identity.tcb_levels.iter().find(|level| report.isv_svn >= level.tcb.isvsvn)?;
    let enclave = TcbStatusWithAdvisory::new(enclave.tcb_status, enclave.advisory_ids.clone());
    let launch_svn = quote.report.as_td10().map(|report| &report.tee_tcb_svn);
    let mut found = level(pck, info, launch_svn)?.merge(&enclave);
    let current = quote.report.as_td15().map(|report| level(pck, info, Some(&report.tee_tcb_svn2)));
    if let Some(current) = current {
        let current = current?;
        let now = current.clone().merge(&enclave).status;
        if now == TcbStatus::Revoked {
            return None;
        }
        found.status = relaunch(found.status, now);
        // These are the advisories of the TDX module that runs now, which is not the one that started the trust domain.
        add(&mut found.advisory_ids, &current.advisory_ids);
    }
    if found.status == TcbStatus::Revoked {
        return None;
    }
    let instance = pck.platform_instance_id.as_ref().and_then(|id| id.as_slice().try_into().ok());
    Some(Platform {
        status: found.status.into(),
        advisories: found.advisory_ids,
        tcb_evaluation: info.tcb_evaluation_data_number.min(identity.tcb_evaluation_data_number),
        fmspc: pck.fmspc,
        ppid: pck.ppid.clone(),
        platform_instance_id: instance,
        dynamic_platform: pck.dynamic_platform,
        cached_keys: pck.cached_keys,
        smt: pck.smt_enabled,
        behind: None,
    })
}

/// Intel's levels, the newest first: their order in the JSON means nothing.
pub(super) fn levels(info: &TcbInfo) -> Vec<&TcbLevel> {
    let mut levels: Vec<_> = info.tcb_levels.iter().collect();
    levels.sort_by(|a, b| {
        let of = |level: &TcbLevel| {
            let tcb = &level.tcb;
            (tcb.sgx_components.clone(), tcb.pce_svn, tcb.tdx_components.clone())
        };
        of(b).cmp(&of(a))
    });
    levels
}

/// The level that a platform reaches with that TDX module, if it has one.
fn level(pck: &PckExtension, info: &TcbInfo, svn: Option<&[u8; 16]>) -> Option<TcbStatusWithAdvisory> {
    let reached = |level: &&TcbLevel| {
        level.shortfalls(&pck.cpu_svn, pck.pce_svn, svn).is_ok_and(|shortfalls| shortfalls.is_empty())
    };
    let level = levels(info).into_iter().find(reached)?;
    let found = TcbStatusWithAdvisory::new(level.tcb_status, level.advisory_ids.clone());
    let Some(svn) = svn else { return Some(found) };
    let Some(module) = info.tdx_module_identity(svn).ok()? else { return Some(found) };
    let module = module.tcb_levels.iter().find(|level| level.shortfall(svn).is_none())?;
    Some(found.merge(&TcbStatusWithAdvisory::new(module.tcb_status, module.advisory_ids.clone())))
}

/// The status of a trust domain whose TDX module was updated under it.
fn relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus {
    use TcbStatus::{
        ConfigurationAndSWHardeningNeeded, ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded,
        SWHardeningNeeded, TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded, UpToDate,
    };
    match (launch, current) {
        (OutOfDate, UpToDate | SWHardeningNeeded) => TDRelaunchAdvised,
        (OutOfDate, ConfigurationNeeded | ConfigurationAndSWHardeningNeeded)
        | (
            OutOfDateConfigurationNeeded,
            UpToDate | SWHardeningNeeded | ConfigurationNeeded | ConfigurationAndSWHardeningNeeded,
        ) => TDRelaunchAdvisedConfigurationNeeded,
        _ => launch,
    }
}

fn add(advisories: &mut Vec<String>, more: &[String]) {
    for advisory in more {
        if !advisories.contains(advisory) {
            advisories.push(advisory.clone());
        }
    }
}
