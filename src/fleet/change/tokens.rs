//! Tokens of routers and of owners. Only hashes are stored.

use std::fmt;

use serde_json::{Value, json};

use super::{ChangeError, Changes};
use crate::document::{Edit, parse_value};
use crate::fleet::network::{TokenFields, TokenHash, owner_path};
use crate::model::{Asn, ObjectName, Secret};
use crate::util::file as files;

/// The field with the hashes.
const HASHES: &str = "tokenHashes";

/// The fields with a token that is no hash. The first one counts.
const PLAIN: [&str; 2] = ["token", "tokenFile"];

/// Who has a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Router(ObjectName),
    /// The owner of an AS number.
    Owner(Asn),
}

impl fmt::Display for Holder {
    /// As arguments of `moenet-agent fleet token`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router(name) => name.fmt(f),
            Self::Owner(asn) => write!(f, "--owner {asn}"),
        }
    }
}

/// The tokens of a router or an owner, as the file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    file: String,
    /// The hashes, the newest one last.
    hashes: Vec<TokenHash>,
    /// The hash of a token that is stored as none.
    plain: Option<TokenHash>,
}

impl Changes {
    fn token_file(&self, holder: &Holder) -> Result<String, ChangeError> {
        let asn = match holder {
            Holder::Router(router) => return self.router_file(router),
            Holder::Owner(asn) => *asn,
        };
        let file = owner_path(asn);
        match self.files.text(&file) {
            Some(_) => Ok(file),
            None => Err(ChangeError::NoOwner(asn)),
        }
    }

    /// Returns the tokens of a router or an owner.
    ///
    /// # Errors
    /// There is no such router or owner, or its token cannot be read.
    pub fn tokens(&self, holder: &Holder) -> Result<TokenPlace, ChangeError> {
        let file = self.token_file(holder)?;
        let text = self.files.text(&file).map_or("", |text| text);
        let fields = TokenFields::read(text).ok_or_else(|| ChangeError::Token {
            holder: holder.to_string(),
            reason: format!(
                "{file} has no valid token, tokenFile and tokenHashes; `moenet-agent fleet token new {holder}` replaces them"
            ),
        })?;
        let plain = match (fields.token, fields.token_file) {
            (Some(token), _) => Some(hash(token.expose())),
            (None, Some(name)) => {
                let path = self.path(&file).with_file_name(name);
                let text = files::read_text(&path, files::TOKEN);
                let text = text.map_err(|source| ChangeError::Io { path, source })?;
                Some(hash(&text))
            }
            (None, None) => None,
        };
        Ok(TokenPlace {
            file,
            hashes: fields.token_hashes,
            plain,
        })
    }

    /// Replaces all tokens of a router or an owner by one, also invalid ones.
    ///
    /// # Errors
    /// There is no such router or owner, or its file cannot be changed at these places.
    pub fn replace_tokens(
        &mut self,
        holder: &Holder,
        token: &Secret<String>,
    ) -> Result<(), ChangeError> {
        let file = self.token_file(holder)?;
        let value = json!([TokenHash::of(token).to_string()]);
        self.edit(&file, &[HASHES], &Edit::Set(value))?;
        self.without_plain(&file)
    }

    /// Adds a token to that of a router or an owner, which stays valid.
    ///
    /// # Errors
    /// There are two already.
    pub fn rotate_tokens(
        &mut self,
        holder: &Holder,
        place: &TokenPlace,
        token: &Secret<String>,
    ) -> Result<(), ChangeError> {
        let old: Vec<&TokenHash> = place.hashes.iter().chain(&place.plain).collect();
        if old.len() > 1 {
            let reason = format!(
                "two tokens are valid already; run `moenet-agent fleet token revoke {holder}` once the new one is in use"
            );
            let holder = holder.to_string();
            return Err(ChangeError::Token { holder, reason });
        }
        if let Some(hash) = &place.plain {
            let hash = Edit::Push(json!(hash.to_string()));
            self.edit(&place.file, &[HASHES], &hash)?;
        }
        let new = Edit::Push(json!(TokenHash::of(token).to_string()));
        self.edit(&place.file, &[HASHES], &new)?;
        self.without_plain(&place.file)
    }

    /// Removes all tokens but the newest one.
    ///
    /// # Errors
    /// There is only one.
    pub fn revoke_tokens(
        &mut self,
        holder: &Holder,
        place: &TokenPlace,
    ) -> Result<(), ChangeError> {
        if place.hashes.len() + usize::from(place.plain.is_some()) < 2 {
            let reason = format!(
                "only one token is valid, and none was revoked; `moenet-agent fleet token new {holder}` replaces it"
            );
            let holder = holder.to_string();
            return Err(ChangeError::Token { holder, reason });
        }
        for _ in 1..place.hashes.len() {
            self.edit(&place.file, &[HASHES, "0"], &Edit::Remove)?;
        }
        self.without_plain(&place.file)
    }

    fn without_plain(&mut self, file: &str) -> Result<(), ChangeError> {
        for field in PLAIN {
            let text = self.files.text(file).map_or("", |text| text);
            let fields: Result<Value, _> = parse_value(text);
            if fields.is_ok_and(|fields| fields.get(field).is_some()) {
                self.edit(file, &[field], &Edit::Remove)?;
            }
        }
        Ok(())
    }
}

/// Returns the hash of a token in a file, as the server reads it.
fn hash(token: &str) -> TokenHash {
    TokenHash::of(&Secret::new(token.trim().to_owned()))
}
