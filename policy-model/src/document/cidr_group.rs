//! `CiliumCIDRGroup`: prefixes that rules refer to by the group's name or labels.

use ipnet::IpNet;

use super::cidr::prefix_or_address;
use super::reader::{Fields, Reader};

/// Reads the prefixes of a group.
pub(super) fn read(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Vec<IpNet>> {
    let node = fields.required("spec", reader)?;
    reader.field("spec", |reader| {
        let mut fields = reader.fields(node)?;
        let prefixes = fields.required("externalCIDRs", reader).and_then(|node| {
            reader.field("externalCIDRs", |reader| reader.list(node, prefix_or_address))
        });
        fields.finish(reader);
        prefixes
    })
}
