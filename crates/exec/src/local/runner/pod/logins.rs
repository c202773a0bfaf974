//! Credentials of a ServiceAccount in containers of an engine: files in memory, of each step its own, and links to them in its home.

use pitcrew_core::pod::{CREDENTIALS, FileEntry, Pod, Shape, Source};

use crate::docker::keeper::{Home, Put, PutWhat};

/// The volume of a step, in its pod.
pub fn volume(index: usize) -> String {
    format!("creds-{index}")
}

/// Those of the pod; none for sidecars.
pub fn of_step(pod: &Pod, index: usize) -> &[FileEntry] {
    let volume = pod.volumes.iter().find(|volume| volume.name == CREDENTIALS);
    match volume.map(|volume| &volume.source) {
        Some(Source::Files(files)) if index < pod.steps.len() && pod.shape == Shape::Tekton => files,
        _ => &[],
    }
}

/// What is put into the volume of a step. What a user of the image is called says nothing of its number: for such a one, everybody in the
/// container can read it, and nobody else is there.
pub fn files(files: &[FileEntry], index: usize, user: &str) -> Vec<Put> {
    let name = user.split(':').next().unwrap_or_default();
    let uid: Option<u32> = if name.is_empty() { Some(0) } else { name.parse().ok() };
    let mut all: Vec<Put> = Vec::new();
    for file in files {
        let path = format!("{}/{}", volume(index), file.path);
        let (user, open) = (uid.unwrap_or(0), if uid.is_some() { 0 } else { 0o044 });
        if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| parent.contains('/')) {
            let mode = if uid.is_some() { 0o700 } else { 0o755 };
            all.push(Put { path: parent.to_owned(), what: PutWhat::Directory, mode, group: 0, user });
        }
        let what = PutWhat::File(file.bytes.clone());
        all.push(Put { path, what, mode: file.mode & 0o700 | open, group: 0, user });
    }
    all
}

/// Where links to them go.
pub fn home(files: &[FileEntry], env: &[String], user: &str) -> Option<Home> {
    let said = env.iter().rev().find_map(|text| text.strip_prefix("HOME="));
    (!files.is_empty()).then(|| Home {
        dir: said.map(str::to_owned).filter(|dir| !dir.is_empty()),
        user: user.to_owned(),
        files: files.iter().map(|file| file.path.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_their_users_own_where_its_number_is_known() {
        let file = FileEntry { path: ".ssh/id_a".into(), bytes: b"key".to_vec(), mode: 0o600, is_secret: true };
        let of = |user: &str| -> Vec<(String, u32, u32)> {
            files(std::slice::from_ref(&file), 2, user).into_iter().map(|put| (put.path, put.mode, put.user)).collect()
        };
        let own = |path: &str, mode, user| (path.to_owned(), mode, user);
        assert_eq!(of("1000:5"), [own("creds-2/.ssh", 0o700, 1000), own("creds-2/.ssh/id_a", 0o600, 1000)]);
        assert_eq!(of(""), [own("creds-2/.ssh", 0o700, 0), own("creds-2/.ssh/id_a", 0o600, 0)]);
        assert_eq!(of("ada"), [own("creds-2/.ssh", 0o755, 0), own("creds-2/.ssh/id_a", 0o644, 0)]);
    }
}
