//! Describes an API in OpenAPI 3.1: operations with utoipa's types, bodies with the JSON Schema that schemars makes of
//! the types which handlers serialise and read.

mod local;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, Header, Info, LicenseBuilder, ObjectBuilder, OpenApiBuilder, Paths,
    Ref, RefOr, Required, Response, ResponseBuilder, Type,
};

use super::error::ErrorBody;
use crate::document::polish;
use crate::util::version::VERSION;

pub use local::description as openapi;

/// The path at which both servers answer with their own description.
pub(crate) const OPENAPI: &str = "/openapi.json";

/// A description in OpenAPI 3.1.
#[derive(serde::Serialize, JsonSchema)]
pub(crate) struct OpenApi(pub(crate) Value);

/// The name of the bearer token in the description.
const BEARER: &str = "bearer";

/// The section of the schemas.
const SCHEMAS: &str = "/components/schemas";

/// An answer to an operation.
pub(crate) struct Answer {
    status: u16,
    response: Response,
}

/// An operation before its answers.
pub(crate) struct Endpoint {
    pub(crate) method: HttpMethod,
    pub(crate) path: String,
    /// Unique among the operations; names methods of generated clients.
    pub(crate) id: String,
    pub(crate) summary: &'static str,
    /// Whether it needs no token.
    pub(crate) open: bool,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<RequestBody>,
}

impl Endpoint {
    /// Creates an operation without parameters and body, which needs the token.
    pub(crate) fn new(
        method: HttpMethod,
        path: impl Into<String>,
        id: impl Into<String>,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path: path.into(),
            id: id.into(),
            summary,
            open: false,
            parameters: Vec::new(),
            body: None,
        }
    }
}

/// The description of an API while it is made.
pub(crate) struct Description {
    /// Schemas of values that this program writes.
    written: SchemaGenerator,
    /// Schemas of values that this program reads.
    read: SchemaGenerator,
    paths: Paths,
}

impl Description {
    pub(crate) fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = SCHEMAS.into();
            settings
        };
        Self {
            written: settings().for_serialize().into_generator(),
            read: settings().into_generator(),
            paths: Paths::new(),
        }
    }

    /// Returns an answer with a JSON body that this program writes.
    pub(crate) fn json<T: JsonSchema>(&mut self, status: u16, about: &str) -> Answer {
        self.written.subschema_for::<T>();
        answer::<T>(status, about)
    }

    /// Returns an answer with a JSON body that the agent reads: what it accepts, which other servers may rely on.
    pub(crate) fn accepted<T: JsonSchema>(&mut self, status: u16, about: &str) -> Answer {
        self.read.subschema_for::<T>();
        answer::<T>(status, about)
    }

    /// Returns an answer of server-sent events, each of this form.
    pub(crate) fn events<T: JsonSchema>(&mut self, about: &str) -> Answer {
        self.written.subschema_for::<T>();
        let response = ResponseBuilder::new().description(about);
        Answer {
            status: 200,
            response: response
                .content("text/event-stream", content::<T>())
                .build(),
        }
    }

    /// Returns the answers of errors: each status with its codes.
    pub(crate) fn errors<'a>(
        &mut self,
        errors: impl IntoIterator<Item = (u16, &'a str)>,
    ) -> Vec<Answer> {
        let mut answers: BTreeMap<u16, String> = BTreeMap::new();
        for (status, about) in errors {
            let text = answers.entry(status).or_default();
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(about);
        }
        let answers = answers.into_iter().map(|(status, about)| {
            let mut answer = self.json::<ErrorBody>(status, &about);
            if status == 429 {
                let headers = &mut answer.response.headers;
                headers.insert("Retry-After".into(), RefOr::T(retry_after()));
            }
            answer
        });
        answers.collect()
    }

    /// Returns the body of a request, which must be JSON.
    pub(crate) fn body<T: JsonSchema>(&mut self) -> Option<RequestBody> {
        self.read.subschema_for::<T>();
        let body = RequestBodyBuilder::new().content("application/json", content::<T>());
        Some(body.required(Some(Required::True)).build())
    }

    /// Returns a part of the path.
    pub(crate) fn part<T: JsonSchema>(&mut self, name: &str, about: &str) -> Parameter {
        self.read.subschema_for::<T>();
        let part = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some(about));
        part.schema(Some(reference::<T>())).build()
    }

    /// Returns a text of the query, with this format.
    pub(crate) fn query(name: &str, about: &str, example: &str) -> Parameter {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .max_length(Some(49));
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::True)
            .description(Some(about))
            .schema(Some(text.build()))
            .example(Some(json!(example)))
            .build()
    }

    /// Returns an optional value of the query.
    pub(crate) fn option(name: &str, about: &str, kind: Type) -> Parameter {
        let minimum = (kind == Type::Integer).then_some(0);
        let value = ObjectBuilder::new().schema_type(kind).minimum(minimum);
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .description(Some(about))
            .schema(Some(value.build()))
            .build()
    }

    /// Returns an optional header of the request.
    pub(crate) fn header(name: &str, about: &str) -> Parameter {
        let text = ObjectBuilder::new().schema_type(Type::String);
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .description(Some(about))
            .schema(Some(text.build()))
            .build()
    }

    /// Returns the answer to a client that has the current one.
    pub(crate) fn unchanged() -> Answer {
        Self::empty(304, "Not changed since the answer with this `ETag`.")
    }

    /// Returns an answer without a body.
    pub(crate) fn empty(status: u16, about: &str) -> Answer {
        let response = ResponseBuilder::new().description(about).build();
        Answer { status, response }
    }

    /// Adds an operation.
    pub(crate) fn add(&mut self, endpoint: Endpoint, answers: impl IntoIterator<Item = Answer>) {
        let mut operation = OperationBuilder::new()
            .operation_id(Some(endpoint.id))
            .summary(Some(endpoint.summary))
            .request_body(endpoint.body);
        if endpoint.open {
            operation = operation.securities(Some([]));
        }
        for parameter in endpoint.parameters {
            operation = operation.parameter(parameter);
        }
        for answer in answers {
            operation = operation.response(answer.status.to_string(), answer.response);
        }
        let item = PathItem::new(endpoint.method, operation.build());
        let known = self.paths.paths.entry(endpoint.path).or_default();
        known.merge_operations(item);
    }

    /// Returns the document.
    pub(crate) fn finish(mut self, title: &str, about: &str, token_is_optional: bool) -> Value {
        let info = Info::builder().title(title).version(VERSION);
        let mut license = LicenseBuilder::new().name("MIT OR Apache-2.0").build();
        license.identifier = Some("MIT OR Apache-2.0".into());
        let info = info.description(Some(about)).license(Some(license));
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components =
            ComponentsBuilder::new().security_scheme(BEARER, SecurityScheme::Http(token));
        let anonymous = token_is_optional.then(SecurityRequirement::default);
        let with_token = SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, []);
        let api = OpenApiBuilder::new()
            .info(info.build())
            .paths(self.paths)
            .components(Some(components.build()))
            .security(Some(anonymous.into_iter().chain([with_token])));
        let mut schemas: Map<_, _> = self.read.take_definitions(true);
        schemas.extend(self.written.take_definitions(true));
        let mut document = json!(api.build());
        let mut schemas = Value::Object(schemas);
        polish(&mut schemas);
        document["components"]["schemas"] = schemas;
        document
    }
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer);
    let mut header = Header::new(seconds.minimum(Some(1)).build());
    header.description = Some("Whole seconds until the next call is admitted.".into());
    header
}

fn answer<T: JsonSchema>(status: u16, about: &str) -> Answer {
    let response = ResponseBuilder::new().description(about);
    Answer {
        status,
        response: response.content("application/json", content::<T>()).build(),
    }
}

/// Returns an answer with a text.
pub(crate) fn text(content_type: &str, about: &str) -> Answer {
    let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::String).build()));
    let response = ResponseBuilder::new().description(about);
    Answer {
        status: 200,
        response: response.content(content_type, content).build(),
    }
}

fn content<T: JsonSchema>() -> Content {
    Content::new(Some(reference::<T>()))
}

fn reference<T: JsonSchema>() -> Ref {
    Ref::from_schema_name(T::schema_name())
}
