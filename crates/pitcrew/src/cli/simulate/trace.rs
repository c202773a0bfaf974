//! Traces: nodes and pods in CSV, in the columns of the public GPU traces of Alibaba. Columns are found by their names;
//! those that nobody asks for are passed over.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use csv::{ErrorKind, Reader, StringRecord};
use pitcrew_control::quotas;
use pitcrew_core::admission::{DEFAULT_NAMESPACE, Limits, Quota};
use pitcrew_core::fleet::replay::Job;
use pitcrew_core::fleet::{Amount, Gpu, Gpus, Node, Request, Sharing};

use super::super::error;

/// More GPUs no machine has.
const MOST_GPUS: u32 = 1024;

pub fn nodes(path: &Path, replicas: u32) -> anyhow::Result<Vec<Node>> {
    rows(path, |row| {
        let (name, gpus) = (row.text("sn")?.to_owned(), row.number::<u32>("gpu")?);
        if gpus > MOST_GPUS {
            return Err(format!("`gpu` is {gpus}; no node has more than {MOST_GPUS}"));
        }
        let (cpu, memory) = (Amount::milli(row.number("cpu_milli")?), row.number("memory_mib")?);
        Ok(node(name, cpu, memory, gpus, row.text("model")?, replicas))
    })
}

/// The pods; `timed`: with their times, which then have to be there. Those with the same name in a column `gang` are one job,
/// whose members ask for the same and come when the last of them does.
pub fn jobs(path: &Path, timed: bool) -> anyhow::Result<Vec<Job>> {
    let mut gangs: BTreeMap<String, usize> = BTreeMap::new();
    let mut jobs: Vec<Job> = Vec::new();
    for (gang, pod) in pods(path, timed)? {
        let Some(name) = gang else {
            jobs.push(pod);
            continue;
        };
        let Some(at) = gangs.get(&name) else {
            gangs.insert(name, jobs.len());
            jobs.push(pod);
            continue;
        };
        let job = &mut jobs[*at];
        let is_alike = (&job.request, &job.namespace, job.priority) == (&pod.request, &pod.namespace, pod.priority);
        if !is_alike {
            let why = format!("{}: the members of the gang `{name}` do not all ask for the same", path.display());
            return Err(error::invalid(why));
        }
        job.members += 1;
        (job.arrives, job.lasts) = (job.arrives.max(pod.arrives), job.lasts.max(pod.lasts));
    }
    Ok(jobs)
}

fn pods(path: &Path, timed: bool) -> anyhow::Result<Vec<(Option<String>, Job)>> {
    rows(path, |row| {
        let (count, milli) = (row.number::<u32>("num_gpu")?, row.number::<u32>("gpu_milli")?);
        let gpus = match (count, milli) {
            (0, _) => Gpus::None,
            (count, 1000) if count <= MOST_GPUS => Gpus::Count(count),
            (1, 1..1000) => Gpus::Share(Amount::milli(milli)),
            _ => return Err(format!("{count} GPUs of {milli} thousandths each: a part is one of one GPU, below 1000")),
        };
        let models = row.maybe("gpu_spec").unwrap_or_default();
        let (arrives, ends) = match timed {
            true => (row.number::<f64>("creation_time")?, row.number::<f64>("deletion_time")?),
            false => (0.0, 0.0),
        };
        if !arrives.is_finite() || !ends.is_finite() || ends < arrives {
            return Err(format!("it ends at {ends} and begins at {arrives}"));
        }
        let request = Request {
            cpu: Amount::milli(row.number("cpu_milli")?),
            memory_mib: row.number("memory_mib")?,
            gpus,
            models: models.split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect(),
            ..Request::default()
        };
        // What it ran for, wherever it waited then.
        let begins = row.maybe("scheduled_time").and_then(|text| text.parse::<f64>().ok()).filter(|at| *at <= ends);
        let lasts = ends - begins.unwrap_or(arrives);
        let is_preemptible = match row.maybe("preemptible") {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => return Err(format!("`preemptible` is `{other}`: it is true or false")),
        };
        let job = Job {
            request,
            members: 1,
            arrives,
            lasts,
            namespace: row.maybe("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            priority: row.maybe("priority").map_or(Ok(0), |_| row.number("priority"))?,
            is_preemptible,
        };
        Ok((row.maybe("gang").map(str::to_owned), job))
    })
}

fn node(name: String, cpu: Amount, memory_mib: u64, gpus: u32, model: &str, replicas: u32) -> Node {
    let sharing = if replicas == 1 { Sharing::Whole } else { Sharing::TimeSlicing { replicas } };
    let gpu = |at| Gpu { sharing: sharing.clone(), ..Gpu::new(format!("{name}/{at}"), model, 0) };
    let gpus = (0..gpus).map(gpu).collect();
    Node::new(name, cpu, memory_mib, gpus)
}

/// Nodes that are not in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedNodes {
    count: u32,
    gpus: u32,
    model: String,
    cpu: Amount,
    memory_mib: u64,
}

impl AddedNodes {
    pub fn nodes(&self, at: usize, replicas: u32) -> impl Iterator<Item = Node> {
        (0..self.count).map(move |n| {
            let name = format!("added-{at}-{n}");
            node(name, self.cpu, self.memory_mib, self.gpus, &self.model, replicas)
        })
    }
}

impl FromStr for AddedNodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // For each GPU what those of the public traces have, unless told.
        let (mut count, mut gpus, mut model, mut cpu, mut memory) = (1, None, String::new(), None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
            let number = || value.parse::<u32>().map_err(|_| format!("`{key}` is a whole number, not `{value}`"));
            match key.trim() {
                "count" => count = number()?,
                "gpus" => gpus = Some(number()?),
                "model" => model = value.to_owned(),
                "cpu" => cpu = Some(value.parse::<Amount>().map_err(|wrong| wrong.to_string())?),
                "memory" => memory = Some(u64::from(number()?)),
                _ => return Err(format!("`{key}` is none of count, gpus, model, cpu (cores) and memory (MiB)")),
            }
        }
        let gpus = gpus.ok_or("how many `gpus` has the node?")?;
        if !(1..=100_000).contains(&count) || gpus > MOST_GPUS {
            return Err(format!("1 to 100000 nodes of up to {MOST_GPUS} GPUs can be added"));
        }
        let cpu = cpu.unwrap_or(Amount::whole(12 * gpus.max(1)));
        Ok(AddedNodes { count, gpus, model, cpu, memory_mib: memory.unwrap_or(u64::from(gpus.max(1)) * 49_152) })
    }
}

/// A quota, in the words of `pitcrew quotas set`: `namespace=ml,gpus=8,cohort=research`.
#[derive(Debug, Clone)]
pub struct AskedQuota(pub Quota);

impl FromStr for AskedQuota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut quota = Quota::new("", Limits::default());
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
            match key.trim() {
                "namespace" => quota.namespace = value.trim().to_owned(),
                key => quotas::change(&mut quota, &key.replace('-', "_"), Some(value.trim()))?,
            }
        }
        if quota.namespace.is_empty() {
            return Err("of which `namespace`? write namespace=ml,gpus=8".to_owned());
        }
        quotas::check(&quota)?;
        Ok(AskedQuota(quota))
    }
}

/// A line of the file, by the names of its columns.
struct Row<'a> {
    columns: &'a StringRecord,
    fields: &'a StringRecord,
}

impl Row<'_> {
    fn maybe(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name.trim() == column)?;
        Some(self.fields.get(at)?.trim()).filter(|text| !text.is_empty())
    }

    fn text(&self, column: &str) -> Result<&str, String> {
        self.maybe(column).ok_or_else(|| match self.columns.iter().any(|name| name.trim() == column) {
            true => format!("`{column}` is empty"),
            false => {
                let columns: Vec<_> = self.columns.iter().take(12).collect();
                format!("the header has no column `{column}`, but {}", columns.join(", "))
            }
        })
    }

    fn number<T: FromStr>(&self, column: &str) -> Result<T, String> {
        let text = self.text(column)?;
        text.parse().map_err(|_| format!("`{column}` is `{text}`, which is not a number that it can be"))
    }
}

fn rows<T>(path: &Path, read: impl Fn(&Row<'_>) -> Result<T, String>) -> anyhow::Result<Vec<T>> {
    let wrong = |why: String| error::invalid(format!("{}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|why| match why.kind() {
        std::io::ErrorKind::NotFound => wrong("there is no such file".to_owned()),
        _ => wrong(why.to_string()),
    })?;
    let mut reader = Reader::from_reader(file);
    let columns = reader.headers().map_err(|why| wrong(why.to_string()))?.clone();
    let mut all = Vec::new();
    for record in reader.records() {
        let fields = record.map_err(|why| match why.kind() {
            ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.as_ref().map_or(0, csv::Position::line);
                error::invalid(format!("{}:{line}: {len} fields, and {expected_len} in the header", path.display()))
            }
            _ => wrong(why.to_string()),
        })?;
        let line = fields.position().map_or(0, csv::Position::line);
        let row = Row { columns: &columns, fields: &fields };
        all.push(read(&row).map_err(|why| error::invalid(format!("{}:{line}: {why}", path.display())))?);
    }
    match all.is_empty() {
        true => Err(wrong("it has no rows below its header".to_owned())),
        false => Ok(all),
    }
}
