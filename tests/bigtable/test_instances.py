"""Instances and app profiles, by the generated clients, by the classic one and by `cbt`."""

import shutil
import subprocess
import uuid

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigtable_admin_v2 import BigtableInstanceAdminClient, types as admin
from google.cloud.bigtable_admin_v2.services.bigtable_instance_admin.transports import BigtableInstanceAdminGrpcTransport
from google.cloud.bigtable_v2 import types as v2

from conftest import code

DATA = "/google.bigtable.v2.Bigtable/"
SINGLE = {"single_cluster_routing": {"cluster_id": "diptych", "allow_transactional_writes": True}}
MULTI = {"multi_cluster_routing_use_any": {}}


@pytest.fixture(scope="module")
def instances(cluster):
    channel = grpc.insecure_channel(cluster.endpoint)
    return BigtableInstanceAdminClient(transport=BigtableInstanceAdminGrpcTransport(channel=channel))


@pytest.fixture
def project():
    return f"p-{uuid.uuid4().hex[:8]}"


def create(instances, project, instance_id="main", **instance):
    cluster = {"location": f"projects/{project}/locations/here", "serve_nodes": 3}
    return instances.create_instance(parent=f"projects/{project}", instance_id=instance_id, instance=instance, clusters={"diptych": cluster})


def test_an_instance_is_made_changed_and_deleted(instances, tables, project):
    operation = create(instances, project, display_name="Shop", labels={"env": "test"})
    made = operation.result()
    assert operation.metadata.original_request.instance_id == "main"
    name = f"projects/{project}/instances/main"
    assert (made.name, made.display_name, dict(made.labels), made.state.name) == (name, "Shop", {"env": "test"}, "READY")
    assert instances.get_instance(name=name) == made and list(instances.list_instances(parent=f"projects/{project}").instances) == [made]
    with pytest.raises(exceptions.AlreadyExists):
        create(instances, project)
    changed = instances.partial_update_instance(instance={"name": name, "labels": {}, "display_name": "x"}, update_mask={"paths": ["labels"]}).result()
    assert (changed.display_name, dict(changed.labels)) == ("Shop", {})
    instances.update_instance(request={"name": name, "display_name": "Store", "labels": {"a": "b"}})
    assert instances.get_instance(name=name).display_name == "Store"
    for wrong in ({"display_name": "x" * 64}, {"labels": {"": "x"}}):
        with pytest.raises(exceptions.InvalidArgument):
            instances.update_instance(request={"name": name, **wrong})
    for paths in ([], ["state"]):
        with pytest.raises(exceptions.InvalidArgument):
            instances.partial_update_instance(instance={"name": name}, update_mask={"paths": paths})
    table = tables.create_table(request={"parent": name, "table_id": "t", "table": {"deletion_protection": True}})
    with pytest.raises(exceptions.FailedPrecondition):
        instances.delete_instance(name=name)
    tables.update_table(table={"name": table.name}, update_mask={"paths": ["deletion_protection"]})
    instances.delete_instance(name=name)
    for call, gone in ((instances.get_instance, name), (instances.delete_instance, name), (tables.get_table, table.name)):
        with pytest.raises(exceptions.NotFound):
            call(name=gone)
    assert not instances.list_instances(parent=f"projects/{project}").instances
    create(instances, project, display_name="Again")
    assert instances.get_instance(name=name).display_name == "Again"


def test_a_cluster_is_what_diptych_makes_it(instances, project):
    name = f"projects/{project}/instances/main/clusters/diptych"
    assert instances.update_cluster(request={"name": name, "serve_nodes": 7}).result().name == name
    instances.partial_update_cluster(cluster={"name": name, "serve_nodes": 7}, update_mask={"paths": ["serve_nodes"]}).result()
    with pytest.raises(exceptions.NotFound):
        instances.update_cluster(request={"name": name + "x", "serve_nodes": 7})


def test_profiles_are_made_changed_and_deleted(instances, project):
    parent = f"projects/{project}/instances/main"
    make = lambda profile_id, **profile: instances.create_app_profile(parent=parent, app_profile_id=profile_id, app_profile=profile)  # noqa: E731
    made = make("batch", description="d", **MULTI)
    assert made.name == f"{parent}/appProfiles/batch" and made.etag and made.description == "d" and "multi_cluster_routing_use_any" in made
    assert instances.get_app_profile(name=made.name) == made
    assert [profile.name.rsplit("/")[-1] for profile in instances.list_app_profiles(parent=parent)] == ["batch", "default"]
    for profile_id, profile, error in [
        ("batch", MULTI, exceptions.AlreadyExists),
        ("default", MULTI, exceptions.AlreadyExists),
        ("a b", MULTI, exceptions.InvalidArgument),
        ("x", {}, exceptions.InvalidArgument),
        ("x", {"single_cluster_routing": {"cluster_id": "elsewhere"}}, exceptions.InvalidArgument),
        ("x", {**SINGLE, "data_boost_isolation_read_only": {"compute_billing_owner": 1}}, exceptions.MethodNotImplemented),
    ]:
        with pytest.raises(error):
            make(profile_id, **profile)
    update = lambda paths, **profile: instances.update_app_profile(app_profile={"name": made.name, **profile}, update_mask={"paths": paths})  # noqa: E731
    changed = update(["single_cluster_routing"], description="not named", **SINGLE).result()
    assert changed.description == "d" and changed.single_cluster_routing.allow_transactional_writes and changed.etag != made.etag
    with pytest.raises(exceptions.Aborted):
        update(["description"], etag=made.etag)
    for paths in ([], ["name"]):
        with pytest.raises(exceptions.InvalidArgument):
            update(paths)
    delete = lambda name: instances.delete_app_profile(request={"name": name, "ignore_warnings": True})  # noqa: E731
    delete(made.name)
    for call in (instances.get_app_profile, lambda name: delete(name)):
        with pytest.raises(exceptions.NotFound):
            call(name=made.name)
    with pytest.raises(exceptions.FailedPrecondition):
        delete(f"{parent}/appProfiles/default")


def test_requests_name_a_profile_that_there_is(raw, instances, tables, project):
    parent = f"projects/{project}/instances/main"
    name = tables.create_table(request={"parent": parent, "table_id": "t", "table": {"column_families": {"f": {}}}}).name
    cell = {"set_cell": {"family_name": "f", "column_qualifier": b"q", "value": b"x"}}

    def mutate(profile):
        request = v2.MutateRowRequest(table_name=name, row_key=b"r", mutations=[cell], app_profile_id=profile)
        return raw(DATA + "MutateRow", request, v2.MutateRowResponse)

    def decide(profile):
        request = v2.CheckAndMutateRowRequest(table_name=name, row_key=b"r", true_mutations=[cell], app_profile_id=profile)
        return raw(DATA + "CheckAndMutateRow", request, v2.CheckAndMutateRowResponse)

    def read(profile):
        return raw(DATA + "ReadRows", v2.ReadRowsRequest(table_name=name, app_profile_id=profile), v2.ReadRowsResponse, stream=True)

    mutate("anything, as with the emulator, while nobody has made any")
    for profile_id, routing in (("one", SINGLE), ("any", MULTI)):
        instances.create_app_profile(parent=parent, app_profile_id=profile_id, app_profile=routing)
    for profile in ("", "default", "one", "any"):
        mutate(profile), read(profile)
    for profile in ("", "default", "one"):
        decide(profile)
    assert code(decide, "any") == "FAILED_PRECONDITION"
    for call in (mutate, decide, read):
        assert code(call, "nobody") == "NOT_FOUND"


def test_a_project_has_dots_and_colons(raw, own, instances, tables):
    parent = f"projects/domain.com:p{uuid.uuid4().hex[:6]}/instances/main"
    name = tables.create_table(request={"parent": parent, "table_id": "t.a", "table": {"column_families": {"f": {}}}}).name
    assert [table.name for table in tables.list_tables(parent=parent)] == [name] == [f"{parent}/tables/t.a"]
    assert [instance.name for instance in instances.list_instances(parent=parent.split("/instances")[0]).instances] == [parent]
    cell = {"set_cell": {"family_name": "f", "column_qualifier": b"q", "value": b"x"}}
    raw(DATA + "MutateRow", v2.MutateRowRequest(table_name=name, row_key=b"r", mutations=[cell]), v2.MutateRowResponse)
    native = "domain-_d-com-_c-" + parent.split(":")[1].split("/")[0] + ".main.t.a"
    assert "f:q" in own.command("scan", native)
    with pytest.raises(exceptions.InvalidArgument):
        tables.create_table(request={"parent": f"projects/{'a.' * 30}b/instances/{'i' * 60}", "table_id": "t" * 50, "table": {}})
    tables.delete_table(name=name)


def test_cbt_makes_instances_and_profiles(cluster, project):
    if not shutil.which("cbt"):
        pytest.skip("cbt is not installed: apt-get install google-cloud-cli-cbt")

    def cbt(*words, instance="main"):
        words = ["cbt", "-project", project, "-instance", instance, *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={"BIGTABLE_EMULATOR_HOST": cluster.endpoint, "HOME": "/nonexistent"})
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    cbt("createinstance", "main", "Shop", "diptych", "europe-west1-b", "3", "SSD")
    assert "Shop" in cbt("listinstances") and "diptych" in cbt("listclusters")
    cbt("createappprofile", "main", "batch", "for batches", "route-any")
    assert "batch" in cbt("getappprofile", "main", "batch")
    assert "batch" in cbt("listappprofile", "main")
    cbt("updateappprofile", "main", "batch", "other", "route-to=diptych", "transactional-writes=true")
    cbt("deleteappprofile", "main", "batch")
    cbt("createtable", "t", "families=f")
    cbt("set", "t", "r", "f:q=x")
    assert "f:q" in cbt("read", "t")
    cbt("deletetable", "t")
    cbt("deleteinstance", "main")
