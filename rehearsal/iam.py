"""IAM: what the policies of a role allow."""

import json
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.responses import IamResponse

from rehearsal.patches import Difference, add

#: The strongest first.
_DECISIONS = {
    PermissionResult.DENIED: "explicitDeny",
    PermissionResult.PERMITTED: "allowed",
    PermissionResult.NEUTRAL: "implicitDeny",
}


@add(
    IamResponse,
    "simulate_principal_policy",
    Difference("policies_can_be_simulated", "SimulatePrincipalPolicy is not implemented"),
)
def _simulate_principal_policy(self: IamResponse) -> ActionResult:
    role = self.backend.get_role_by_arn(self._get_param("PolicySourceArn"))
    policies = [IAMPolicy(_as_json(document)) for document in role.policies.values()]
    policies += [IAMPolicy(policy) for policy in role.managed_policies.values()]
    context = {
        entry["ContextKeyName"]: value
        for entry in self._get_param("ContextEntries") or []
        for value in entry["ContextKeyValues"]
    }
    results = []
    for action in self._get_param("ActionNames"):
        for resource in self._get_param("ResourceArns") or ["*"]:
            found = {policy.is_action_permitted(action, resource, None, context) for policy in policies}
            decision = next((text for result, text in _DECISIONS.items() if result in found), "implicitDeny")
            results.append({"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision})
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def _as_json(document: Any) -> str:
    """Return a policy's text; CloudFormation's are dictionaries, with None for each AWS::NoValue."""
    if isinstance(document, str):
        return document
    statements = [statement for statement in document["Statement"] if statement]
    return json.dumps({**document, "Statement": statements})
