//! Several engines' metrics as one text: each family once, each sample with the labels of its engine. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

/// One engine's answer to a scrape.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub namespace: String,
    pub deployment: String,
    pub replica: String,
    pub text: String,
}

#[derive(Debug, Default)]
struct Family {
    help: Option<String>,
    type_: Option<String>,
    samples: Vec<String>,
}

/// Puts the scrapes together. What `HELP` and `TYPE` say is the first engine's word: all are of one build.
pub fn merge(scrapes: &[Scrape]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for scrape in scrapes {
        let labels = format!(
            "deployment_namespace=\"{}\",deployment=\"{}\",replica=\"{}\"",
            escaped(&scrape.namespace),
            escaped(&scrape.deployment),
            escaped(&scrape.replica)
        );
        let mut current = String::new();
        for line in scrape.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some((kind, name, words)) = header(line) {
                name.clone_into(&mut current);
                let family = families.entry(current.clone()).or_default();
                let slot = if kind == "HELP" { &mut family.help } else { &mut family.type_ };
                slot.get_or_insert_with(|| words.to_owned());
            } else if !line.starts_with('#')
                && let Some((name, sample)) = labelled(line, &labels)
            {
                // A histogram's samples carry suffixes of their family's name; samples without a header are their own.
                let family = if !current.is_empty() && name.starts_with(&current) { &current } else { name };
                families.entry(family.to_owned()).or_default().samples.push(sample);
            }
        }
    }
    render(&families)
}

fn render(families: &BTreeMap<String, Family>) -> String {
    let mut text = String::new();
    for (name, family) in families.iter().filter(|(_, family)| !family.samples.is_empty()) {
        // Writing to a string cannot fail.
        if let Some(help) = &family.help {
            let _ = writeln!(text, "# HELP {name} {help}");
        }
        if let Some(type_) = &family.type_ {
            let _ = writeln!(text, "# TYPE {name} {type_}");
        }
        for sample in &family.samples {
            let _ = writeln!(text, "{sample}");
        }
    }
    text
}

fn header(line: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    if kind != "HELP" && kind != "TYPE" {
        return None;
    }
    let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((kind, name, words))
}

/// The sample's name, and the sample with our labels in front of its own.
fn labelled<'a>(line: &'a str, labels: &str) -> Option<(&'a str, String)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at_checked(end)?;
    let sample = match rest.strip_prefix('{') {
        None => format!("{name}{{{labels}}}{rest}"),
        Some(own) if own.trim_start().starts_with('}') => format!("{name}{{{labels}{}", own.trim_start()),
        Some(own) => format!("{name}{{{labels},{own}"),
    };
    Some((name, sample))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{Scrape, merge};

    fn scrape(replica: &str, text: &str) -> Scrape {
        Scrape {
            namespace: "lab".to_owned(),
            deployment: "coder".to_owned(),
            replica: replica.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn writes_each_family_once_with_the_labels_of_each_engine() {
        let text = "# HELP steps_total Steps.\n# TYPE steps_total counter\nsteps_total 3\n# TYPE wait_seconds histogram\n\
                    wait_seconds_bucket{le=\"1\"} 2\nwait_seconds_sum 0.5\nwait_seconds_count 2\n";
        let merged =
            merge(&[scrape("a", text), scrape("b", "# TYPE steps_total counter\nsteps_total{} 4\nlone 1\n")]);
        let labels = |replica: &str| {
            format!("deployment_namespace=\"lab\",deployment=\"coder\",replica=\"{replica}\"")
        };
        let (a, b) = (labels("a"), labels("b"));
        let expected = format!(
            "lone{{{b}}} 1\n# HELP steps_total Steps.\n# TYPE steps_total counter\nsteps_total{{{a}}} 3\nsteps_total{{{b}}} 4\n\
             # TYPE wait_seconds histogram\nwait_seconds_bucket{{{a},le=\"1\"}} 2\nwait_seconds_sum{{{a}}} 0.5\n\
             wait_seconds_count{{{a}}} 2\n"
        );
        assert_eq!(merged, expected);
    }

    #[test]
    fn leaves_out_what_is_no_metric() {
        assert_eq!(merge(&[scrape("a", "nonsense\n# EOF\n\n")]), "");
    }
}
