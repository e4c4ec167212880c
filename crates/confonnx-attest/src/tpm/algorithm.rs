//! Numbers of algorithms and curves (TPM 2.0 library, part 2, 6.3 TPM_ALG_ID and 6.4 TPM_ECC_CURVE).

pub(super) const RSA: u16 = 0x0001;
pub(super) const SHA256: u16 = 0x000b;
pub(super) const SHA384: u16 = 0x000c;
pub(super) const NULL: u16 = 0x0010;
pub(super) const RSASSA: u16 = 0x0014;
#[cfg(feature = "produce")]
pub(super) const RSAES: u16 = 0x0015;
pub(super) const RSAPSS: u16 = 0x0016;
#[cfg(feature = "produce")]
pub(super) const OAEP: u16 = 0x0017;
pub(super) const ECDSA: u16 = 0x0018;
pub(super) const ECC: u16 = 0x0023;
pub(super) const P256: u16 = 0x0003;
pub(super) const P384: u16 = 0x0004;
