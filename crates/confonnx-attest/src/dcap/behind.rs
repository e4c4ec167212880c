//! How far a platform is behind: which components, by how much, since when Intel knows, and what to update.

use dcap_qvl::intel::PckExtension;
use dcap_qvl::{SvnComponent, SvnShortfall, TcbInfo, TcbLevel};
use serde::Deserialize;

use super::quote::Quote;
use super::status::levels;
use crate::shown::shown;

/// What Intel's JSON says of components besides their versions, which `dcap-qvl` does not keep.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    tcb_levels: Vec<NamedLevel>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedLevel {
    tcb: NamedTcb,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedTcb {
    sgxtcbcomponents: Vec<Component>,
    tdxtcbcomponents: Vec<Component>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Component {
    /// Who updates the component, such as `BIOS` or `OS/VMM`.
    category: Option<String>,
    /// What the component is, such as `TDX Module`.
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// What the platform lacks of the newest level, or nothing when it reaches that. `json` is what `info` was read from.
pub(super) fn newest(quote: &Quote, pck: &PckExtension, info: &TcbInfo, json: &str) -> Option<String> {
    let newest = *levels(info).first()?;
    let lacks = lacks(quote, pck, newest, info, json)?;
    let since = newest.tcb_date.split('T').next().unwrap_or_default();
    Some(format!("behind Intel's newest level, of {}: {lacks}", shown(since)))
}

/// What the platform lacks of the level that it lacks least of.
pub(super) fn nearest(quote: &Quote, pck: &PckExtension, info: &TcbInfo, json: &str) -> Option<String> {
    let by_number =
        |level: &&&TcbLevel| shortfalls(quote, pck, level, info).map_or(usize::MAX, |all| all.len());
    let nearest = *levels(info).iter().min_by_key(by_number)?;
    lacks(quote, pck, nearest, info, json)
}

fn lacks(quote: &Quote, pck: &PckExtension, level: &TcbLevel, info: &TcbInfo, json: &str) -> Option<String> {
    let shortfalls = shortfalls(quote, pck, level, info).filter(|all| !all.is_empty())?;
    let named: Named = serde_json::from_str(json).unwrap_or_default();
    Some(shortfalls.iter().map(|shortfall| described(shortfall, &named)).collect::<Vec<_>>().join(", "))
}

/// Which components are too low for the level. Of the TDX module it is the one that runs now, if that is another one
/// than at the start.
fn shortfalls(
    quote: &Quote,
    pck: &PckExtension,
    level: &TcbLevel,
    info: &TcbInfo,
) -> Option<Vec<SvnShortfall>> {
    let launch = quote.report.as_td10().map(|report| report.tee_tcb_svn);
    let current = quote.report.as_td15().map(|report| report.tee_tcb_svn2);
    let svn = current.or(launch);
    let mut all = level.shortfalls(&pck.cpu_svn, pck.pce_svn, svn.as_ref()).ok()?;
    if let Some(svn) = svn
        && let Ok(Some(module)) = info.tdx_module_identity(&svn)
    {
        let newest = module.tcb_levels.iter().max_by_key(|level| level.tcb.isvsvn);
        all.extend(newest.and_then(|level| level.shortfall(&svn)));
    }
    Some(all)
}

impl Named {
    /// Who updates a component, and what it is, by the first level that says so.
    fn words(&self, of: impl Fn(&NamedTcb) -> Option<&Component>) -> String {
        let words = |level: &NamedLevel| {
            let component = of(&level.tcb)?;
            let words: Vec<_> = [&component.category, &component.kind]
                .into_iter()
                .flatten()
                .map(|word| shown(word))
                .collect();
            (!words.is_empty()).then(|| words.join(", "))
        };
        self.tcb_levels.iter().find_map(words).unwrap_or_default()
    }
}

fn described(shortfall: &SvnShortfall, named: &Named) -> String {
    let SvnShortfall { component, have, needs } = shortfall;
    let (name, what) = match *component {
        SvnComponent::Sgx(i) => {
            (format!("CPUSVN[{i}]"), named.words(|tcb| tcb.sgxtcbcomponents.get(usize::from(i))))
        }
        SvnComponent::Tdx(i) => {
            (format!("TEE_TCB_SVN[{i}]"), named.words(|tcb| tcb.tdxtcbcomponents.get(usize::from(i))))
        }
        SvnComponent::PceSvn => ("PCESVN".into(), "the SGX platform software".into()),
        SvnComponent::TdxModuleIsvSvn => ("TDX module SVN".into(), "the TDX module".into()),
    };
    let hint = if what.is_empty() { String::new() } else { format!(" (update {what})") };
    format!("{name} {have} of {needs}{hint}")
}
