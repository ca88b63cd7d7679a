//! Writes what the JSON mapping must know of the messages as tables: names, numbers, kinds, in the order of declaration.
//!
//! Only messages that a method of the client API takes or gives, and what they hold. A kind of field that the mapping does
//! not know ends the build here, not a request later.

use std::collections::HashMap;
use std::fmt::Write;

use protox::prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

/// Packages whose services have a JSON form.
const PACKAGES: &[&str] = &["etcdserverpb", "v3lockpb", "v3electionpb"];

#[derive(Default)]
struct Tables {
    messages: Vec<MessageDescriptor>,
    enums: Vec<EnumDescriptor>,
    places: HashMap<String, usize>,
}

impl Tables {
    fn message(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(place) = self.places.get(message.full_name()) {
            return *place;
        }
        let place = self.messages.len();
        self.messages.push(message.clone());
        self.places.insert(message.full_name().to_owned(), place);
        for field in message.fields() {
            match field.kind() {
                Kind::Message(inner) => drop(self.message(&inner)),
                Kind::Enum(inner) if !self.places.contains_key(inner.full_name()) => {
                    self.places
                        .insert(inner.full_name().to_owned(), self.enums.len());
                    self.enums.push(inner);
                }
                _ => {}
            }
        }
        place
    }

    fn kind(&self, field: &FieldDescriptor) -> String {
        assert!(!field.is_map(), "{field:?}: maps have no JSON form here");
        match field.kind() {
            Kind::Message(inner) => format!("Message({})", self.places[inner.full_name()]),
            Kind::Enum(inner) => format!("Enum({})", self.places[inner.full_name()]),
            Kind::Bool => "Bool".to_owned(),
            Kind::Int32 => "Int32".to_owned(),
            Kind::Int64 => "Int64".to_owned(),
            Kind::Uint32 => "Uint32".to_owned(),
            Kind::Uint64 => "Uint64".to_owned(),
            Kind::String => "String".to_owned(),
            Kind::Bytes => "Bytes".to_owned(),
            other => panic!("{field:?}: {other:?} has no JSON form here"),
        }
    }
}

/// The text of the tables, in Rust.
pub fn tables(pool: &DescriptorPool) -> Result<String, std::fmt::Error> {
    let mut tables = Tables::default();
    let mut methods = Vec::new();
    for service in pool.services() {
        if !PACKAGES.contains(&service.package_name()) {
            continue;
        }
        for method in service.methods() {
            let (input, output) = (method.input(), method.output());
            let path = format!("/{}/{}", service.full_name(), method.name());
            methods.push((path, tables.message(&input), tables.message(&output)));
        }
    }
    let mut text = String::new();
    writeln!(text, "pub static MESSAGES: &[Message] = &[")?;
    for message in &tables.messages {
        let oneofs: Vec<_> = message.oneofs().collect();
        writeln!(text, "Message {{ fields: &[")?;
        let declared = &message.descriptor_proto().field;
        assert!(declared.len() <= 32, "{message:?} has too many fields");
        for declared in declared {
            let number = declared.number() as u32;
            let field = message.get_field(number).expect("declared");
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|other| *other == oneof));
            writeln!(
                text,
                "Field {{ name: {:?}, json_name: {:?}, number: {number}, kind: Kind::{}, is_list: {}, oneof: {oneof:?} }},",
                field.name(),
                field.json_name(),
                tables.kind(&field),
                field.cardinality() == Cardinality::Repeated,
            )?;
        }
        let names: Vec<&str> = oneofs.iter().map(|oneof| oneof.full_name()).collect();
        writeln!(text, "], oneofs: &{names:?} }},")?;
    }
    writeln!(text, "];\npub static ENUMS: &[&[(&str, i32)]] = &[")?;
    for kind in &tables.enums {
        let values: Vec<_> = kind.values().collect();
        let values: Vec<_> = values.iter().map(|v| (v.name(), v.number())).collect();
        writeln!(text, "&{values:?},")?;
    }
    writeln!(text, "];\npub static METHODS: &[(&str, usize, usize)] = &[")?;
    for method in methods {
        writeln!(text, "{method:?},")?;
    }
    writeln!(text, "];")?;
    Ok(text)
}
