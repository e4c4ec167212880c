//! Encrypted models: a model, with its data files if it has some, in one file of the [`age`](crate::age) format.
//!
//! A model without data files is that file's plaintext; one with them is packed into an archive. Its owner may sign what
//! a server is given ([`OwnerKey`]).

mod error;
mod file;
mod owner;
mod pack;
mod tar;
mod unpack;

pub use crate::age::{
    DecryptError, Digests, EncryptError, KeyError, ModelKey, decrypt, encrypt, is_encrypted,
};
pub use error::EncryptFileError;
pub use file::encrypt_file;
pub use owner::{NotSigned, OwnerKey, OwnerKeyError, OwnerPublicKey};
pub use unpack::{Named, OpenModelError, OpenedModel, UnpackError, Unpacker, open_model};
