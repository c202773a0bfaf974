//! A directory as a target. Every file is written aside and renamed into place.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::select::Selected;
use super::{PublishError, Published, io_error};
use crate::whole;

pub(super) struct Directory {
    dir: PathBuf,
}

impl Directory {
    pub fn open(dir: &Path) -> Result<Self, PublishError> {
        fs::create_dir_all(dir).map_err(io_error(format!("cannot make the directory `{}`", dir.display())))?;
        let dir = dir.canonicalize().map_err(io_error(format!("cannot open the directory `{}`", dir.display())))?;
        Ok(Directory { dir })
    }

    pub fn put_file(&self, file: &Selected, content_type: &str) -> Result<Published, PublishError> {
        let mut source =
            fs::File::open(&file.path).map_err(io_error(format!("cannot read `{}`", file.path.display())))?;
        let (path, bytes, sum) = self.put(&file.name, &mut source)?;
        Ok(Published {
            name: file.name.clone(),
            url: path.display().to_string(),
            bytes,
            sha256: sum,
            content_type: content_type.into(),
        })
    }

    pub fn put_text(&self, name: &str, text: &str) -> Result<(), PublishError> {
        self.put(name, &mut text.as_bytes()).map(drop)
    }

    fn put(&self, name: &str, source: &mut dyn Read) -> Result<(PathBuf, u64, String), PublishError> {
        let path = self.dir.join(name);
        let parent = path.parent().unwrap_or(&self.dir);
        let what = || format!("cannot write `{}`", path.display());
        fs::create_dir_all(parent).map_err(io_error(what()))?;
        // A link in the target must not send files elsewhere.
        let real = parent.canonicalize().map_err(io_error(what()))?;
        if !real.starts_with(&self.dir) {
            return Err(PublishError::Request(format!("`{}` leads out of the target by a link", path.display())));
        }
        let (bytes, sum) = whole::fill(&path, |file| copy(source, file)).map_err(io_error(what()))?;
        Ok((path, bytes, sum))
    }
}

fn copy(source: &mut dyn Read, file: &mut fs::File) -> std::io::Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        file.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
    Ok((bytes, super::hex(&hash.finalize())))
}
