use crate::snapshot::{Access, Policy};

/// Who may ask a deployment's engines: its own keys and the lab's, or anybody where the lab or the deployment says so.
///
/// No key at all and no leave for everybody means that nobody gets in.
pub(crate) fn merged(policy: &Policy, deployment: &Access) -> Access {
    let mut key_hashes: Vec<String> =
        policy.key_hashes.iter().chain(&deployment.key_hashes).cloned().collect();
    key_hashes.sort();
    key_hashes.dedup();
    Access { anonymous: policy.allow_anonymous || deployment.anonymous, key_hashes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::policy;

    #[test]
    fn keys_of_the_lab_and_of_the_deployment_both_open() {
        let policy = Policy { key_hashes: vec!["lab".into(), "b".into()], ..policy() };
        let access =
            merged(&policy, &Access { anonymous: false, key_hashes: vec!["own".into(), "lab".into()] });
        assert_eq!(
            access,
            Access { anonymous: false, key_hashes: vec!["b".into(), "lab".into(), "own".into()] }
        );
    }

    #[test]
    fn anonymous_needs_one_of_the_two() {
        for (lab, own) in [(false, false), (false, true), (true, false), (true, true)] {
            let policy = Policy { allow_anonymous: lab, ..policy() };
            let access = merged(&policy, &Access { anonymous: own, key_hashes: vec![] });
            assert_eq!(access.anonymous, lab || own);
        }
    }
}
