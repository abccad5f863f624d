"""What an admin does with a store that clients made: a bound, a snapshot, and the way back from it."""

import openai

from tests.fixtures.server import Server


def test_an_admin_bounds_a_store_and_takes_it_back_from_a_snapshot(documents_server: Server) -> None:
    """What does not fit says so; what is restored is found in a new store of the same owner."""
    server = documents_server
    with openai.OpenAI(base_url=server.base_url, api_key=server.new_key(), max_retries=0, timeout=60) as client:

        def upload(name: str, text: str) -> str:
            return client.files.create(file=(name, text.encode()), purpose="assistants").id

        made = client.vector_stores.create(name="bounded", extra_body={"engine": "exact"})
        first = upload("one.txt", "Cranes lift stop logs into the slot.")
        assert client.vector_stores.files.create_and_poll(first, vector_store_id=made.id).status == "completed"
        path, admin = f"/collections/{made.id}", server.admin
        bounded = admin.patch(path, json={"quota_passages": 1}).json()
        assert (bounded["quota_passages"], bounded["quota_bytes"], bounded["engine"]) == (1, None, "exact")
        refused = server.post(
            f"/v1/vector_stores/{made.id}/files", {"file_id": upload("two.txt", "More.")}, key=client.api_key
        )
        assert refused.status_code == 413, refused.text
        assert refused.json()["error"]["code"] == "storage_quota_exceeded"
        snapshot = admin.post(f"{path}/snapshots").json()
        assert (snapshot["documents"], snapshot["passages"]) == (1, 1)
        client.vector_stores.delete(made.id)
        assert [each["id"] for each in admin.get(f"{path}/snapshots").json()["data"]] == [snapshot["id"]]
        restored = admin.post(f"{path}/snapshots/{snapshot['id']}/restore")
        assert restored.status_code == 201, restored.text
        (result,) = client.vector_stores.search(restored.json()["id"], query="Who lifts stop logs?").data
        assert result.content[0].text.startswith("Cranes lift")
        assert admin.post(f"{path}/snapshots/snap_none/restore").json()["error"]["code"] == "snapshot_not_found"
        assert admin.delete(f"{path}/snapshots/{snapshot['id']}").status_code == 200
        assert admin.post("/collections/vs_none/snapshots").status_code == 404
