//! The sections of a policy, one for each kind of TEE.

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::contract::Section;
use crate::evidence::Facts;
use crate::measured::Measured;
use crate::tee::for_each_tee;
use crate::{Tee, Verdict};

macro_rules! platforms {
    ($($(#[$doc:meta])* $kind:ident $folder:ident;)*) => {
        /// What each kind of TEE has to be beyond the enclave hash. A kind without a section is refused.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Platforms {
            $(
                #[doc = concat!("`[", stringify!($folder), "]`.")]
                pub $folder: Option<crate::$folder::Policy>,
            )*
        }

        impl Platforms {
            /// Every kind of TEE, on platforms without known weaknesses.
            pub fn strict() -> Self {
                Self { $($folder: Some(crate::$folder::Policy::strict()),)* }
            }

            /// Every kind of TEE, on platforms as real clouds run them. What that concedes, each section's `cloud` says.
            pub fn cloud() -> Self {
                Self { $($folder: Some(crate::$folder::Policy::cloud()),)* }
            }

            /// The section of that kind of TEE alone.
            pub fn only(self, tee: Tee) -> Self {
                Self { $($folder: self.$folder.filter(|_| tee == Tee::$kind),)* }
            }

            /// All sections, with every value.
            pub(crate) fn to_toml(&self) -> String {
                let mut text = String::new();
                $(if let Some(section) = &self.$folder {
                    let section = toml::to_string(section).unwrap_or_default();
                    text.push_str(concat!("[", stringify!($folder), "]\n"));
                    text.push_str(&section);
                })*
                text
            }

            /// The kinds that have a section.
            pub(crate) fn accepted(&self) -> Vec<Tee> {
                let all = [$((Tee::$kind, self.$folder.is_some()),)*];
                all.into_iter().filter_map(|(tee, accepted)| accepted.then_some(tee)).collect()
            }

            /// The kinds whose section does not say which programs it accepts, where all that a signer ever signed does not
            /// count as saying so. `signed`: the policy gives signing keys.
            pub(crate) fn without_program(&self, signed: bool) -> Vec<Tee> {
                let all = [$((Tee::$kind, self.$folder.as_ref().map(|section| names(section, signed))),)*];
                all.into_iter().filter_map(|(tee, named)| (named == Some(false)).then_some(tee)).collect()
            }

            /// Whether the section that `facts` are about says which programs are accepted; `signed` as in
            /// [`without_program`](Self::without_program).
            pub(crate) fn names_program(&self, facts: &Facts, signed: bool) -> bool {
                match facts {
                    #[cfg(feature = "insecure-dev")]
                    Facts::Insecure => false,
                    $(Facts::$kind(_) => self.$folder.as_ref().is_some_and(|section| names(section, signed)),)*
                }
            }

            /// Whether that section accepts debug mode.
            pub(crate) fn allows_debug(&self, facts: &Facts) -> bool {
                match facts {
                    #[cfg(feature = "insecure-dev")]
                    Facts::Insecure => false,
                    $(Facts::$kind(facts) => {
                        self.$folder.as_ref().is_some_and(|section| section.allows_debug(facts))
                    })*
                }
            }

            /// Makes every check of that section.
            pub(crate) fn check(&self, measured: &Measured<Facts>, verdict: &mut Verdict) {
                match &measured.facts {
                    #[cfg(feature = "insecure-dev")]
                    Facts::Insecure => {}
                    $(Facts::$kind(facts) => {
                        if let Some(section) = &self.$folder {
                            section.check(facts, &measured.enclave_hash, verdict);
                        }
                    })*
                }
            }

            /// These sections with those of a policy file laid over them; kinds that the file has no section for are
            /// refused, unless it has none at all.
            pub(super) fn refined(self, file: &Table) -> Result<Self, toml::de::Error> {
                let refined = Self {
                    $($folder: section(self.$folder.as_ref(), file.get(stringify!($folder)))?,)*
                };
                Ok(if refined.accepted().is_empty() { self } else { refined })
            }
        }
    };
}
for_each_tee!(platforms);

impl Platforms {
    /// From now on expects at least that number of Intel's TCB recovery event.
    pub(crate) fn raise_tcb_evaluation(&mut self, number: u32) {
        let tdx = self.tdx.as_mut().map(|section| &mut section.minimum_tcb_evaluation);
        let sgx = self.sgx.as_mut().map(|section| &mut section.minimum_tcb_evaluation);
        let azure = self.azure.as_mut().map(|section| &mut section.tdx.minimum_tcb_evaluation);
        for minimum in [tdx, sgx, azure].into_iter().flatten() {
            *minimum = (*minimum).max(Some(number));
        }
    }

    /// Whether these sections expect of that kind of TEE just what the preset `cloud` does.
    pub(crate) fn is_cloud(&self, tee: Tee) -> bool {
        self.clone().only(tee) == Self::cloud().only(tee)
    }
}

fn names(section: &impl Section, signed: bool) -> bool {
    section.names_program() || (signed && section.narrows_signer())
}

impl Default for Platforms {
    fn default() -> Self {
        Self::strict()
    }
}

pub(super) fn section<P: Serialize + DeserializeOwned>(
    preset: Option<&P>,
    given: Option<&Value>,
) -> Result<Option<P>, toml::de::Error> {
    let Some(given) = given else { return Ok(None) };
    let mut values = Value::try_from(preset).map_err(serde::de::Error::custom)?;
    lay_over(&mut values, given);
    values.try_into().map(Some)
}

/// Replaces values by those of `given`; tables key by key.
fn lay_over(values: &mut Value, given: &Value) {
    match (values, given) {
        (Value::Table(values), Value::Table(given)) => {
            for (key, given) in given {
                match values.get_mut(key) {
                    Some(value) => lay_over(value, given),
                    None => drop(values.insert(key.clone(), given.clone())),
                }
            }
        }
        (value, given) => *value = given.clone(),
    }
}
