//! What a container finds in its home: links to credentials, which are in memory alone.

use super::Home;
use crate::docker::tar::{Entry, What};
use crate::docker::{Engine, Fault, Kind};

/// Where the files themselves are, in the container.
pub const CREDENTIALS_AT: &str = "/tekton/creds";

/// Whom a container runs as, by its own `/etc/passwd`.
#[derive(Debug, PartialEq, Eq)]
struct Person {
    uid: u32,
    gid: u32,
    home: String,
}

/// Puts the links there, in the place of what is there. Where an image lets nobody, that is told, and the container runs without.
pub async fn link(engine: &Engine, id: &str, home: &Home) -> Result<(), Fault> {
    let passwd = match engine.get(id, "/etc/passwd").await {
        Err(fault) if fault.is_unanswered() => return Err(fault),
        found => found.unwrap_or_default().into_iter().find_map(|entry| match entry.what {
            What::File(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            What::Directory | What::Link(_) | What::Other => None,
        }),
    };
    let person = Person::of(&home.user, &passwd.unwrap_or_default());
    let dir = home.dir.clone().filter(|dir| dir.starts_with('/')).unwrap_or(person.home.clone());
    if dir.trim_end_matches('/') == CREDENTIALS_AT {
        return Ok(());
    }
    let is_there = match engine.stat(id, &dir).await {
        Ok(_) => true,
        Err(fault) if fault.kind == Kind::NotFound => false,
        Err(fault) => return told(&dir, fault),
    };
    // By the root: of a volume in another one, an engine takes either for that which the files go to.
    match engine.put(id, "/", &entries(dir.trim_matches('/'), is_there, &person, &home.files)).await {
        Err(fault) if is_there && !fault.is_unanswered() => {}
        Err(fault) => return told(&dir, fault),
        Ok(()) => return Ok(()),
    }
    // Where the root cannot be written, the home may be a volume.
    match engine.put(id, &dir, &entries("", true, &person, &home.files)).await {
        Err(fault) => told(&dir, fault),
        Ok(()) => Ok(()),
    }
}

fn told(dir: &str, fault: Fault) -> Result<(), Fault> {
    if fault.is_unanswered() {
        return Err(fault);
    }
    eprintln!("the credentials are in `{CREDENTIALS_AT}`, and cannot be linked to in `{dir}`: {fault}");
    Ok(())
}

/// Directories that are the person's own, and links, below a directory that may be there.
fn entries(below: &str, is_there: bool, person: &Person, files: &[String]) -> Vec<Entry> {
    let own = |entry: Entry| Entry { user: person.uid, group: person.gid, ..entry };
    let path = |name: &str| if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
    let mut all = Vec::new();
    if !is_there {
        all.push(own(Entry::directory(below, 0o755)));
    }
    for file in files {
        if let Some((parent, _)) = file.rsplit_once('/') {
            all.push(own(Entry::directory(path(parent), 0o700)));
        }
        all.push(own(Entry::link(path(file), format!("{CREDENTIALS_AT}/{file}"))));
    }
    all
}

impl Person {
    /// `name` or `uid`, either with a group behind `:`; empty: root.
    fn of(user: &str, passwd: &str) -> Person {
        let name = user.split(':').next().unwrap_or_default();
        let name = if name.is_empty() { "0" } else { name };
        let known = passwd.lines().find_map(|line| {
            let parts: Vec<&str> = line.split(':').collect();
            let [own, _, uid, gid, _, home, ..] = parts[..] else { return None };
            (own == name || uid == name)
                .then(|| Some(Person { uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.to_owned() }))?
        });
        let uid = name.parse().unwrap_or(0);
        let home = if uid == 0 { "/root" } else { "/" };
        known.filter(|known| !known.home.is_empty()).unwrap_or(Person { uid, gid: 0, home: home.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_that_of_the_containers_own_users() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001::/home/ada:/bin/sh\nbroken\n";
        let person = |uid, gid, home: &str| Person { uid, gid, home: home.to_owned() };
        for user in ["ada", "1000", "1000:5", "ada:staff"] {
            assert_eq!(Person::of(user, passwd), person(1000, 1001, "/home/ada"));
        }
        assert_eq!(Person::of("", passwd), person(0, 0, "/root"));
        assert_eq!(Person::of("", ""), person(0, 0, "/root"));
        assert_eq!(Person::of("1234", passwd), person(1234, 0, "/"));
    }

    #[test]
    fn links_lie_in_directories_that_are_the_persons_own() {
        let person = Person { uid: 7, gid: 8, home: "/home/a".to_owned() };
        let all = entries("home/a", false, &person, &[".gitconfig".to_owned(), ".ssh/config".to_owned()]);
        let paths: Vec<&str> = all.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["home/a", "home/a/.gitconfig", "home/a/.ssh", "home/a/.ssh/config"]);
        assert!(all.iter().all(|entry| (entry.user, entry.group) == (7, 8)));
        assert!(all[3].what == What::Link("/tekton/creds/.ssh/config".to_owned()));
    }
}
