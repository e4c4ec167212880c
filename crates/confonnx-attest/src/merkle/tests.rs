use proptest::prelude::*;

use super::*;
use crate::digest::decode_array;

/// The eight leaves of the Certificate Transparency test vectors (certificate-transparency-go, merkletree tests).
const CT_LEAVES: [&[u8]; 8] = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    b"\x40\x41\x42\x43",
    b"\x50\x51\x52\x53\x54\x55\x56\x57",
    b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
];

/// The roots of trees of the first 1, 2, … 8 leaves.
const CT_ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn ct_tree(size: usize) -> Tree {
    Tree::from_leaves(CT_LEAVES[..size].iter().map(|leaf| leaf_hash(leaf)).collect())
}

fn nonces(n: usize) -> Vec<Nonce> {
    (0..n).map(|i| Nonce(Sha256::digest(i.to_be_bytes()).into())).collect()
}

#[test]
fn roots_match_the_ct_vectors() {
    for (i, root) in CT_ROOTS.iter().enumerate() {
        assert_eq!(ct_tree(i + 1).root(), decode_array(root).unwrap(), "{} leaves", i + 1);
    }
}

#[test]
fn paths_match_the_ct_vectors() {
    // Leaf from 0, tree size and path, from the same source.
    let cases: [(usize, usize, &[&str]); 5] = [
        (0, 1, &[]),
        (
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        ),
        (
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        ),
        (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        (
            1,
            5,
            &[
                "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        ),
    ];
    for (leaf, size, path) in cases {
        let path = path.iter().map(|hash| decode_array(hash).unwrap()).collect::<Vec<_>>();
        assert_eq!(ct_tree(size).proof(leaf).unwrap().path, path, "leaf {leaf} of {size}");
    }
}

#[test]
fn every_leaf_of_every_small_tree_verifies_and_no_other_does() {
    for size in 1..=33 {
        let (nonces, tree) = (nonces(size), Tree::new(nonces(size)).unwrap());
        for (i, nonce) in nonces.iter().enumerate() {
            let proof = tree.proof(i).unwrap();
            assert_eq!(proof.verify(nonce, &tree.root()), Ok(()), "leaf {i} of {size}");
            let other = Nonce([0xff; 32]);
            assert_eq!(proof.verify(&other, &tree.root()), Err(ProofError::Root), "leaf {i} of {size}");
        }
        assert_eq!(tree.proof(size), None);
        assert_eq!(tree.proof(usize::MAX), None);
    }
}

#[test]
fn trees_have_bounds() {
    assert_eq!(Tree::new(Vec::new()).unwrap_err(), TreeError::Empty);
    let found = MAX_LEAVES + 1;
    assert_eq!(Tree::new(nonces(found)).unwrap_err(), TreeError::TooLarge { found });
    let tree = Tree::new(nonces(MAX_LEAVES)).unwrap();
    let proof = tree.proof(MAX_LEAVES - 1).unwrap();
    assert_eq!(
        (proof.path.len(), proof.verify(&nonces(MAX_LEAVES)[MAX_LEAVES - 1], &tree.root())),
        (16, Ok(()))
    );
}

#[test]
fn absurd_proofs_are_refused() {
    let (nonce, root) = (Nonce([1; 32]), [2; 32]);
    let verify = |leaf_index, tree_size, path: usize| {
        InclusionProof { leaf_index, tree_size, path: vec![[3; 32]; path] }.verify(&nonce, &root)
    };
    assert_eq!(verify(0, 0, 0), Err(ProofError::TreeSize { found: 0 }));
    assert_eq!(verify(0, u64::MAX, 64), Err(ProofError::TreeSize { found: u64::MAX }));
    assert_eq!(verify(9, 9, 4), Err(ProofError::LeafIndex { leaf_index: 9, tree_size: 9 }));
    assert_eq!(verify(0, 1, 1), Err(ProofError::PathLength { found: 1 }));
    assert_eq!(verify(0, 9, 3), Err(ProofError::PathLength { found: 3 }));
    assert_eq!(verify(0, 9, 30_000), Err(ProofError::PathLength { found: 30_000 }));
}

#[test]
fn a_leaf_is_not_a_node() {
    // Second preimage: the two leaf hashes as one entry must not give the parent's hash.
    let tree = Tree::new(nonces(2)).unwrap();
    let entry = tree.levels[0].concat();
    assert_ne!(leaf_hash(&entry), tree.root());
}

proptest! {
    #[test]
    fn a_changed_proof_does_not_verify(size in 2usize..200, pick in any::<prop::sample::Index>(), byte in 0usize..32, bit in 0u8..8) {
        let (nonces, tree) = (nonces(size), Tree::new(nonces(size)).unwrap());
        let leaf = pick.index(size);
        let good = tree.proof(leaf).unwrap();
        prop_assert_eq!(good.verify(&nonces[leaf], &tree.root()), Ok(()));

        let mut changed = good.clone();
        let sibling = pick.index(changed.path.len());
        changed.path[sibling][byte] ^= 1 << bit;
        prop_assert_eq!(changed.verify(&nonces[leaf], &tree.root()), Err(ProofError::Root));

        let mut shorter = good.clone();
        shorter.path.pop();
        prop_assert!(shorter.verify(&nonces[leaf], &tree.root()).is_err());

        let elsewhere = InclusionProof { leaf_index: (leaf as u64 + 1) % size as u64, ..good };
        prop_assert!(elsewhere.verify(&nonces[leaf], &tree.root()).is_err());
    }
}
