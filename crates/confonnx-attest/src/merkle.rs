//! The Merkle tree of a window's nonces (RFC 9162 section 2.1), so that one quote proves freshness to many.

use sha2::{Digest as _, Sha256};

use crate::Nonce;

/// Most nonces in one tree.
pub const MAX_LEAVES: usize = 65_536;

/// The tree of a batch of nonces: built once in O(n), each proof in O(log n).
#[derive(Clone, Debug)]
pub struct Tree {
    /// Leaf hashes first, the root last; an odd node at the end of a level moves up as it is.
    levels: Vec<Vec<[u8; 32]>>,
}

/// The path from a nonce to the root of its tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// Position of the nonce, from 0.
    pub leaf_index: u64,
    /// Number of nonces in the tree.
    pub tree_size: u64,
    /// Sibling hashes from the leaf upwards.
    pub path: Vec<[u8; 32]>,
}

/// Nonces no tree can be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// There are no nonces.
    #[error("expected at least one nonce, found none")]
    Empty,
    /// There are more nonces than [`MAX_LEAVES`].
    #[error("expected at most {MAX_LEAVES} nonces, found {found}")]
    TooLarge {
        /// Number of nonces.
        found: usize,
    },
}

/// Why a proof does not show that a nonce is under a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The tree is empty or larger than [`MAX_LEAVES`].
    #[error("a tree of {found} nonces (1 to {MAX_LEAVES} are allowed)")]
    TreeSize {
        /// The proof's tree size.
        found: u64,
    },
    /// The leaf is outside the tree.
    #[error("leaf {leaf_index} of a tree of {tree_size} nonces")]
    LeafIndex {
        /// The proof's leaf index.
        leaf_index: u64,
        /// The proof's tree size.
        tree_size: u64,
    },
    /// The path is longer or shorter than leaf and tree size need.
    #[error("a path of {found} hashes, which is not what leaf and tree size need")]
    PathLength {
        /// Hashes in the path.
        found: usize,
    },
    /// The path leads to another root.
    #[error("a path that leads to another root")]
    Root,
}

impl Tree {
    /// The tree whose leaves are `nonces`, in order.
    pub fn new(nonces: Vec<Nonce>) -> Result<Self, TreeError> {
        match nonces.len() {
            0 => Err(TreeError::Empty),
            found if found > MAX_LEAVES => Err(TreeError::TooLarge { found }),
            _ => Ok(Self::from_leaves(nonces.iter().map(|nonce| leaf_hash(&nonce.0)).collect())),
        }
    }

    /// The root hash.
    pub fn root(&self) -> [u8; 32] {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The proof for the nonce at `index`; `None` when there is none.
    pub fn proof(&self, index: usize) -> Option<InclusionProof> {
        let leaves = self.levels.first()?;
        leaves.get(index)?;
        let path = self
            .levels
            .iter()
            .enumerate()
            .filter_map(|(height, level)| level.get((index >> height) ^ 1).copied())
            .collect();
        Some(InclusionProof { leaf_index: index as u64, tree_size: leaves.len() as u64, path })
    }

    pub(crate) fn from_leaves(leaves: Vec<[u8; 32]>) -> Self {
        let mut levels = Vec::new();
        let mut level = leaves;
        while level.len() > 1 {
            let above = level
                .chunks(2)
                .filter_map(|pair| match pair {
                    [left, right] => Some(node_hash(left, right)),
                    odd => odd.first().copied(),
                })
                .collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        levels.push(level);
        Self { levels }
    }
}

impl InclusionProof {
    /// Shows that `nonce` is a leaf under `root` (RFC 9162 section 2.1.3.2).
    pub fn verify(&self, nonce: &Nonce, root: &[u8; 32]) -> Result<(), ProofError> {
        if self.tree_size > MAX_LEAVES as u64 {
            return Err(ProofError::TreeSize { found: self.tree_size });
        }
        self.verify_leaf(leaf_hash(&nonce.0), root)
    }

    /// Shows that `entry` is a leaf under `root`, in a tree of any size.
    pub(crate) fn verify_entry(&self, entry: &[u8], root: &[u8; 32]) -> Result<(), ProofError> {
        self.verify_leaf(leaf_hash(entry), root)
    }

    fn verify_leaf(&self, leaf: [u8; 32], root: &[u8; 32]) -> Result<(), ProofError> {
        let Some(last) = self.tree_size.checked_sub(1) else {
            return Err(ProofError::TreeSize { found: 0 });
        };
        if self.leaf_index > last {
            return Err(ProofError::LeafIndex { leaf_index: self.leaf_index, tree_size: self.tree_size });
        }
        let length = ProofError::PathLength { found: self.path.len() };
        let (mut node, mut last, mut hash) = (self.leaf_index, last, leaf);
        for sibling in &self.path {
            if last == 0 {
                return Err(length);
            }
            if node & 1 == 1 || node == last {
                hash = node_hash(sibling, &hash);
                // An odd node at the end of a level moved up: skip the levels where it had no sibling.
                while node & 1 == 0 && node != 0 {
                    (node, last) = (node >> 1, last >> 1);
                }
            } else {
                hash = node_hash(&hash, sibling);
            }
            (node, last) = (node >> 1, last >> 1);
        }
        if last != 0 {
            return Err(length);
        }
        if hash == *root { Ok(()) } else { Err(ProofError::Root) }
    }
}

pub(crate) fn leaf_hash(entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests;
