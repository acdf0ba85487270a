//! Generates the servers' glue: which method has which messages. The messages themselves come from other crates.

use tonic_build::manual::{Builder, Method, Service};

const DATA: &str = "crate::data::";
const ADMIN: &str = "crate::admin::";
const OPERATION: &str = "crate::longrunning::Operation";

fn main() {
    let data = Service::builder().name("Bigtable").package("google.bigtable.v2").comment("Rows.");
    let data = [
        streaming("read_rows", "ReadRows", "crate::newer::ReadRowsRequest", &of(DATA, "ReadRowsResponse")),
        streaming(
            "sample_row_keys",
            "SampleRowKeys",
            "crate::newer::SampleRowKeysRequest",
            &of(DATA, "SampleRowKeysResponse"),
        ),
        unary("mutate_row", "MutateRow", "crate::newer::MutateRowRequest", &of(DATA, "MutateRowResponse")),
        streaming("mutate_rows", "MutateRows", "crate::newer::MutateRowsRequest", &of(DATA, "MutateRowsResponse")),
        unary(
            "check_and_mutate_row",
            "CheckAndMutateRow",
            "crate::newer::CheckAndMutateRowRequest",
            &of(DATA, "CheckAndMutateRowResponse"),
        ),
        unary("ping_and_warm", "PingAndWarm", &of(DATA, "PingAndWarmRequest"), &of(DATA, "PingAndWarmResponse")),
        unary(
            "read_modify_write_row",
            "ReadModifyWriteRow",
            &of(DATA, "ReadModifyWriteRowRequest"),
            &of(DATA, "ReadModifyWriteRowResponse"),
        ),
    ]
    .into_iter()
    .fold(data, |service, method| service.method(method));

    let tables = Service::builder().name("BigtableTableAdmin").package("google.bigtable.admin.v2").comment("Tables.");
    let tables = [
        unary("create_table", "CreateTable", &of(ADMIN, "CreateTableRequest"), &of(ADMIN, "Table")),
        unary("list_tables", "ListTables", &of(ADMIN, "ListTablesRequest"), &of(ADMIN, "ListTablesResponse")),
        unary("get_table", "GetTable", &of(ADMIN, "GetTableRequest"), &of(ADMIN, "Table")),
        unary("delete_table", "DeleteTable", &of(ADMIN, "DeleteTableRequest"), "crate::Empty"),
        unary(
            "modify_column_families",
            "ModifyColumnFamilies",
            &of(ADMIN, "ModifyColumnFamiliesRequest"),
            &of(ADMIN, "Table"),
        ),
        unary("drop_row_range", "DropRowRange", &of(ADMIN, "DropRowRangeRequest"), "crate::Empty"),
        unary(
            "generate_consistency_token",
            "GenerateConsistencyToken",
            &of(ADMIN, "GenerateConsistencyTokenRequest"),
            &of(ADMIN, "GenerateConsistencyTokenResponse"),
        ),
        unary(
            "check_consistency",
            "CheckConsistency",
            &of(ADMIN, "CheckConsistencyRequest"),
            &of(ADMIN, "CheckConsistencyResponse"),
        ),
    ]
    .into_iter()
    .fold(tables, |service, method| service.method(method));

    let instances =
        Service::builder().name("BigtableInstanceAdmin").package("google.bigtable.admin.v2").comment("Instances.");
    let instances = [
        unary("create_instance", "CreateInstance", &of(ADMIN, "CreateInstanceRequest"), OPERATION),
        unary("get_instance", "GetInstance", &of(ADMIN, "GetInstanceRequest"), &of(ADMIN, "Instance")),
        unary(
            "list_instances",
            "ListInstances",
            &of(ADMIN, "ListInstancesRequest"),
            &of(ADMIN, "ListInstancesResponse"),
        ),
        unary("get_cluster", "GetCluster", &of(ADMIN, "GetClusterRequest"), &of(ADMIN, "Cluster")),
        unary("list_clusters", "ListClusters", &of(ADMIN, "ListClustersRequest"), &of(ADMIN, "ListClustersResponse")),
        unary("get_app_profile", "GetAppProfile", &of(ADMIN, "GetAppProfileRequest"), &of(ADMIN, "AppProfile")),
        unary(
            "list_app_profiles",
            "ListAppProfiles",
            &of(ADMIN, "ListAppProfilesRequest"),
            &of(ADMIN, "ListAppProfilesResponse"),
        ),
    ]
    .into_iter()
    .fold(instances, |service, method| service.method(method));
    Builder::new().build_client(false).compile(&[data.build(), tables.build(), instances.build()]);
}

fn of(package: &str, message: &str) -> String {
    format!("{package}{message}")
}

fn method(name: &str, route: &str, input: &str, output: &str) -> tonic_build::manual::MethodBuilder {
    let builder = Method::builder().name(name).route_name(route).comment(format!("`{route}`"));
    builder.input_type(input).output_type(output).codec_path("crate::bounds::Codec")
}

fn unary(name: &str, route: &str, input: &str, output: &str) -> Method {
    method(name, route, input, output).build()
}

fn streaming(name: &str, route: &str, input: &str, output: &str) -> Method {
    method(name, route, input, output).server_streaming().build()
}
