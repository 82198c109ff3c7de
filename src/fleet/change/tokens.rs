//! Tokens of routers. Only hashes are stored.

use serde_json::{Value, json};

use super::{ChangeError, Changes};
use crate::document::{Edit, parse_value};
use crate::fleet::network::TokenHash;
use crate::model::{ObjectName, Secret};
use crate::util::file as files;

/// The field with the hashes.
const HASHES: &str = "tokenHashes";

/// The tokens of a router, as its file has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    file: String,
    /// The hashes, the newest one last.
    hashes: Vec<TokenHash>,
    /// The field with a token that is no hash, and its hash.
    plain: Option<(&'static str, TokenHash)>,
}

impl Changes {
    /// Returns the tokens of a router.
    ///
    /// # Errors
    /// There is no such router, or its token cannot be read.
    pub fn tokens(&self, router: &ObjectName) -> Result<TokenPlace, ChangeError> {
        let file = self.router_file(router)?;
        let text = self.files.text(&file).map_or("", |text| text);
        let wrong = |reason: String| ChangeError::Token {
            router: router.to_string(),
            reason,
        };
        let fields: Value = parse_value(text).map_err(|error| {
            let error = error.in_file(file.as_ref());
            wrong(error.to_string())
        })?;
        let hashes = fields.get(HASHES).cloned().unwrap_or_else(|| json!([]));
        let hashes = serde_json::from_value(hashes).map_err(|_| {
            wrong(format!(
                "{file}: {HASHES} is not valid; run `moenet-agent fleet validate`"
            ))
        })?;
        let token = fields.get("token").and_then(Value::as_str);
        let token_file = fields.get("tokenFile").and_then(Value::as_str);
        let plain = match (token, token_file) {
            (Some(token), _) => Some(("token", hash(token))),
            (None, Some(name)) => {
                let folder = self.dir.join(&file);
                let path = folder.parent().unwrap_or(&self.dir).join(name);
                let text = files::read_text(&path, files::TOKEN);
                let text = text.map_err(|source| ChangeError::Io { path, source })?;
                Some(("tokenFile", hash(&text)))
            }
            (None, None) => None,
        };
        Ok(TokenPlace {
            file,
            hashes,
            plain,
        })
    }

    /// Replaces all tokens of a router by one.
    ///
    /// # Errors
    /// The file cannot be changed at these places.
    pub fn replace_tokens(
        &mut self,
        place: &TokenPlace,
        token: &Secret<String>,
    ) -> Result<(), ChangeError> {
        let value = json!([TokenHash::of(token).to_string()]);
        self.edit(&place.file, &[HASHES], &Edit::Set(value))?;
        self.without_plain(place)
    }

    /// Adds a token to that of a router, which stays valid.
    ///
    /// # Errors
    /// The router has two already.
    pub fn rotate_tokens(
        &mut self,
        router: &ObjectName,
        place: &TokenPlace,
        token: &Secret<String>,
    ) -> Result<(), ChangeError> {
        let old: Vec<&TokenHash> = place
            .hashes
            .iter()
            .chain(place.plain.as_ref().map(|it| &it.1))
            .collect();
        if old.len() > 1 {
            let reason = format!(
                "two tokens are valid already; run `moenet-agent fleet token revoke {router}` once the router has the new one"
            );
            let router = router.to_string();
            return Err(ChangeError::Token { router, reason });
        }
        if let Some((_, hash)) = &place.plain {
            let hash = Edit::Push(json!(hash.to_string()));
            self.edit(&place.file, &[HASHES], &hash)?;
        }
        let new = Edit::Push(json!(TokenHash::of(token).to_string()));
        self.edit(&place.file, &[HASHES], &new)?;
        self.without_plain(place)
    }

    /// Removes the older one of two tokens.
    ///
    /// # Errors
    /// The router does not have two.
    pub fn revoke_token(
        &mut self,
        router: &ObjectName,
        place: &TokenPlace,
    ) -> Result<(), ChangeError> {
        if place.hashes.len() + usize::from(place.plain.is_some()) < 2 {
            let reason = format!(
                "only one token is valid, and none was revoked; `moenet-agent fleet token new {router}` replaces it"
            );
            let router = router.to_string();
            return Err(ChangeError::Token { router, reason });
        }
        match place.plain {
            Some(_) => self.without_plain(place),
            None => self.edit(&place.file, &[HASHES, "0"], &Edit::Remove),
        }
    }

    fn without_plain(&mut self, place: &TokenPlace) -> Result<(), ChangeError> {
        match place.plain {
            Some((field, _)) => self.edit(&place.file, &[field], &Edit::Remove),
            None => Ok(()),
        }
    }
}

/// Returns the hash of a token in a file, as the server reads it.
fn hash(token: &str) -> TokenHash {
    TokenHash::of(&Secret::new(token.trim().to_owned()))
}
