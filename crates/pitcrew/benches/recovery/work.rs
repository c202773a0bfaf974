//! A job with one GPU that runs until it is told how to end, and says when it began and ended.

use crate::site::Site;

const NAME: &str = "work";

/// What it said.
pub struct Said {
    pub at: f64,
    pub node: String,
    pub gpu: String,
}

/// A run of it. Lines of those before it are counted.
pub struct Work {
    pub run: String,
    begun: usize,
    ended: usize,
}

/// Makes its workflow.
pub fn make(site: &Site) {
    let at = site.world.path("jobs");
    let text = format!(
        "workflow: {NAME}\ntasks:\n  {NAME}:\n    backend: ssh\n    resources: {{gpu: 1}}\n    run: |
      cd '{at}' || exit 1
      echo \"begin $(date +%s.%N) ${{HOME##*/}} $CUDA_VISIBLE_DEVICES\" >>times
      trap 'echo \"end $(date +%s.%N) - -\" >>times; exit 143' TERM
      while [ ! -e code ]; do sleep 0.02; done
      code=$(cat code); rm code
      echo \"end $(date +%s.%N) - -\" >>times
      exit $code
",
        at = at.display()
    );
    site.world.workflow(NAME, &text);
}

impl Work {
    /// Begins a run, and waits until the job has begun.
    pub fn begin(site: &Site) -> (Work, Said) {
        let (begun, ended) = (said(site, "begin").len(), said(site, "end").len());
        let mut work = Work { run: site.trigger(NAME), begun, ended };
        let first = work.begun(site);
        (work, first)
    }

    /// Its next beginning.
    pub fn begun(&mut self, site: &Site) -> Said {
        self.begun += 1;
        next(site, "begin", self.begun)
    }

    pub fn ended(&mut self, site: &Site) -> Said {
        self.ended += 1;
        next(site, "end", self.ended)
    }

    /// Tells it how to end, and waits for that.
    pub fn end(&mut self, site: &Site, code: i32) -> Said {
        let at = site.world.path("jobs");
        std::fs::write(at.join("new"), code.to_string()).unwrap();
        std::fs::rename(at.join("new"), at.join("code")).unwrap();
        self.ended(site)
    }

    /// Lets it end well, and waits for the end of the run.
    pub fn finish(mut self, site: &Site) {
        self.end(site, 0);
        site.until_run(&self.run, "success");
    }
}

fn next(site: &Site, what: &str, number: usize) -> Said {
    site.world.wait(what, || said(site, what).len() >= number);
    said(site, what).swap_remove(number - 1)
}

fn said(site: &Site, what: &str) -> Vec<Said> {
    let text = std::fs::read_to_string(site.world.path("jobs").join("times")).unwrap_or_default();
    let read = |line: &str| {
        let mut words = line.split(' ');
        let is_it = words.next() == Some(what);
        let at = words.next()?.parse().ok()?;
        is_it.then_some(Said { at, node: words.next()?.to_owned(), gpu: words.next()?.to_owned() })
    };
    text.lines().filter_map(read).collect()
}
